"""When requests arrive. Made before the load begins, so no answer can change it. Pure."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from itertools import pairwise

ARRIVALS_MAX = 5_000_000
"""Bounds the memory of a run: an arrival takes 34 bytes, and for a moment at the end some 100 more."""
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """Arrivals in nanoseconds from the start, in order, within so many seconds."""

    arrivals_ns: array[int]
    seconds: float

    def __post_init__(self) -> None:
        arrivals = self.arrivals_ns
        if len(arrivals) > ARRIVALS_MAX:
            raise ValueError(f"{len(arrivals)} arrivals are more than {ARRIVALS_MAX}")
        if any(later < earlier for earlier, later in pairwise(arrivals)):
            raise ValueError("arrivals are not in order")
        if arrivals and not (arrivals[0] >= 0 and arrivals[-1] < self.seconds * NS):
            raise ValueError(f"an arrival is not within {self.seconds} s")

    def then(self, after: Schedule) -> Schedule:
        """One after the other: a trickle and then a spike, for example."""
        offset = round(self.seconds * NS)
        arrivals = self.arrivals_ns + array("q", (offset + at for at in after.arrivals_ns))
        return Schedule(arrivals, self.seconds + after.seconds)


def constant(rate: float, seconds: float) -> Schedule:
    """So many arrivals per second, at equal distances."""
    count = _count(rate, seconds)
    return Schedule(array("q", (int(n * NS / rate) for n in range(count))), seconds)


def poisson(rate: float, seconds: float, seed: int) -> Schedule:
    """Arrivals that know nothing of each other, so many per second in the mean, as a crowd comes.

    The same seed is the same schedule.
    """
    _count(rate, seconds)
    gap_s = random.Random(seed).expovariate
    arrivals = array("q")
    end_ns = seconds * NS
    at_ns = gap_s(rate) * NS
    while at_ns < end_ns:
        arrivals.append(int(at_ns))
        at_ns += gap_s(rate) * NS
    return Schedule(arrivals, seconds)


def _count(rate: float, seconds: float) -> int:
    if not (rate > 0 and seconds > 0):
        raise ValueError("rate and seconds must be more than 0")
    if rate * seconds > ARRIVALS_MAX:
        raise ValueError(f"{rate}/s for {seconds} s are more than {ARRIVALS_MAX} arrivals")
    return int(rate * seconds)
