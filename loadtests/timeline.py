"""What came of every request when, and how long it took, over all workers. Pure: no Locust in here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loadtests.answers import BUSY

Row = tuple[int, str, str, int, int]
"""A second since the epoch, a request, its outcome, milliseconds (rounded), how often."""
UNEXPECTED = "unexpected"
"""The outcome of an answer that the contract does not allow. Locust says why, under its failures."""
POINTS_MAX = 300
"""A picture has no more points, and a long test takes no more memory for each."""


def width_of(seconds: int) -> int:
    """How many seconds are counted together in a test that takes so long."""
    return max(1, -(-seconds // POINTS_MAX))


def rounded(ms: float) -> int:
    """To two digits, so that a test of any length has few different ones."""
    whole = round(ms)
    step = int(10 ** max(0, len(str(whole)) - 2))
    return round(whole / step) * step


class Timeline:
    """Counts by time, request, outcome and duration. Times are those of the node that asked."""

    def __init__(self) -> None:
        self.width_s = 1
        self._counts: Counter[tuple[int, str, str, int]] = Counter()

    def begin(self, width_s: int) -> None:
        """Forget everything, and count so many seconds together."""
        self.width_s = width_s
        self._counts.clear()

    def note(self, at_s: float, request: str, outcome: str, ms: float) -> None:
        second = int(at_s) // self.width_s * self.width_s
        self._counts[second, request, outcome, rounded(ms)] += 1

    def take(self) -> list[Row]:
        """Everything noted so far; noting starts again."""
        rows = self.rows()
        self._counts.clear()
        return rows

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        for second, request, outcome, ms, count in rows:
            self._counts[second, request, outcome, ms] += count

    def rows(self) -> list[Row]:
        return [(*cell, count) for cell, count in self._counts.items()]

    def between(self, since_s: float, until_s: float) -> list[Row]:
        """The rows of this time; of the second in which it begins too."""
        return [row for row in self.rows() if int(since_s) <= row[0] < until_s]


TIMELINE = Timeline()
"""This process's. Locust runs one test at a time, so there is one."""


def percentile_ms(rows: Iterable[Row], percent: float) -> float | None:
    """What so many percent took at most, to two digits; None of nothing."""
    by_ms: Counter[int] = Counter()
    for _, _, _, ms, count in rows:
        by_ms[ms] += count
    wanted, seen = by_ms.total() * percent / 100, 0
    for ms, count in sorted(by_ms.items()):
        seen += count
        if seen >= wanted:
            return float(ms)
    return None


def of_request(rows: Iterable[Row], request: str) -> list[Row]:
    return [row for row in rows if row[1] == request]


def count(rows: Iterable[Row]) -> int:
    return sum(row[4] for row in rows)


def failures(rows: Iterable[Row]) -> int:
    return sum(row[4] for row in rows if row[2] == UNEXPECTED)


def busy(rows: Iterable[Row]) -> int:
    """How many were told to come back later."""
    return sum(row[4] for row in rows if row[2] in BUSY)


def by_second(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, Counter[int]]:
    """How often what happened in which second, by `key`."""
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        found[key(row)][row[0]] += row[4]
    return dict(found)


def report_rows_to_master(data: dict[str, Any], **_: Any) -> None:
    """Listens to report_to_master, on a worker."""
    data["timeline"] = TIMELINE.take()


def add_workers_rows(data: dict[str, Any], **_: Any) -> None:
    """Listens to worker_report, on the master."""
    TIMELINE.add(data["timeline"])
