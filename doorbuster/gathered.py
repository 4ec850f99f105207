"""A histogram that is told now and then: what is gathered for it meanwhile costs a tenth of what telling
does, with its lock, and its file where processes share them."""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import Histogram


class Gathered:
    """Observations of one histogram that it has not been told of yet."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = histogram._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def note(self, value: float, times: int = 1) -> None:
        """The same value, as often as that."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def tell(self) -> None:
        # Set apart first: whatever is made from here on may run the collector, and that is noted too.
        fresh = [0] * len(self._bounds)
        counts, self._counts = self._counts, fresh
        total, self._sum = self._sum, 0.0
        if any(counts):
            # The library has no such call; its own `observe` adds one to the same two.
            self._histogram._sum.inc(total)
            for place, count in enumerate(counts):
                if count:
                    self._histogram._buckets[place].inc(count)
