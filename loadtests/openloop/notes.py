"""What a run notes while it goes on: times, and how each arrival ended."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from time import thread_time_ns

SCHEDSTAT = "/proc/thread-self/schedstat"


@dataclass(slots=True)
class Notes:
    """By arrival, in nanoseconds of perf_counter_ns(); 0 is never. The rest is of the whole run."""

    taken_up_ns: array[int]
    """When it was sent, or, when no connection was free, when it got in line."""
    sent_ns: array[int]
    ended_ns: array[int]
    codes: array[int]
    """An answer's status or a Fault; 0 until it has ended."""
    without_retry_after: list[int] = field(default_factory=list)
    """Arrivals that were answered 503, without a word when to come back."""
    busy_shares: list[float] = field(default_factory=list)
    """For each second, how much of it the generator ran, or waited for a core to run on."""
    start_ns: int = 0
    cpu_ns: int = 0
    ended: int = 0
    """Counted one by one, to be held against `codes`."""
    connections_opened: int = 0
    connections_peak: int = 0

    @classmethod
    def of(cls, arrivals: int) -> Notes:
        def times() -> array[int]:
            return array("q", bytes(8 * arrivals))

        return cls(times(), times(), times(), array("h", bytes(2 * arrivals)))


def busy_ns() -> int:
    """How long this thread has run, or waited for a core while it could have run.

    Where the system does not tell how long it waited, only how long it ran.
    """
    try:
        with open(SCHEDSTAT) as schedstat:
            ran, waited, _slices = schedstat.read().split()
        return int(ran) + int(waited)
    except (OSError, ValueError):
        return thread_time_ns()
