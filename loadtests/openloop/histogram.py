"""How often which duration was seen, to within 0.4 %. Pure.

The hdrhistogram of PyPI would do the same; but it records in Python as well, one value at a time, and wants
pbr and setuptools at run time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

STEP_BITS = 8
"""Between a power of two and the next there are 2 ** 8 steps."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
NS_IN_MS = 1_000_000


class Histogram:
    """Counts durations in nanoseconds; tells of them in milliseconds. Has a few thousand counters at most."""

    def __init__(self, durations_ns: Iterable[int] = ()) -> None:
        self._counts: Counter[int] = Counter()
        """By the highest duration of the step: a percentile is never less than what was seen."""
        self._max_ns = 0
        self.count = 0
        self.add(durations_ns)

    def add(self, durations_ns: Iterable[int]) -> None:
        """Count these too. Many at once are cheaper: a run keeps its times, and counts them at its end."""
        values = [max(0, ns) for ns in durations_ns]
        self._counts.update(_highest_of_step(ns) for ns in values)
        self.count += len(values)
        self._max_ns = max(self._max_ns, max(values, default=0))

    def merge(self, other: Histogram) -> None:
        self._counts.update(other._counts)
        self.count += other.count
        self._max_ns = max(self._max_ns, other._max_ns)

    @property
    def max_ms(self) -> float:
        """Exact. 0 of nothing."""
        return self._max_ns / NS_IN_MS

    def percentile_ms(self, percent: float) -> float:
        """What so many percent took at most. 0 of nothing."""
        wanted = self.count * percent / 100
        seen = 0
        for ns, count in sorted(self._counts.items()):
            seen += count
            if seen >= wanted:
                return min(ns, self._max_ns) / NS_IN_MS
        return self.max_ms

    def as_json(self) -> dict[str, Any]:
        """`count`, `p50_ms`, `p90_ms`, `p99_ms`, `p99.9_ms`, `max_ms`."""
        percentiles = {f"p{percent:g}_ms": round(self.percentile_ms(percent), 3) for percent in PERCENTILES}
        return {"count": self.count, **percentiles, "max_ms": round(self.max_ms, 3)}


def _highest_of_step(ns: int) -> int:
    beyond = ns.bit_length() - STEP_BITS - 1
    return ns | ((1 << beyond) - 1) if beyond > 0 else ns
