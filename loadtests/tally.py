"""How often each request came to each outcome, over all workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

Row = tuple[str, str, int]
"""A request, its outcome, how often."""


class Tally:
    """Counts outcomes. Locust counts requests and failures; a refusal is neither."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, request: str, outcome: str, times: int = 1) -> None:
        self._counts[request, outcome] += times

    def of(self, request: str, outcome: str) -> int:
        return self._counts[request, outcome]

    def add(self, rows: Iterable[Row]) -> None:
        for request, outcome, count in rows:
            self._counts[request, outcome] += count

    def clear(self) -> None:
        self._counts.clear()

    def rows(self) -> list[Row]:
        return [(request, outcome, count) for (request, outcome), count in self._counts.items()]

    def take(self) -> list[Row]:
        """Everything counted so far; counting starts again."""
        rows = self.rows()
        self.clear()
        return rows

    def table(self) -> list[str]:
        """The lines of a table, each request's most frequent outcome first."""
        totals: Counter[str] = Counter()
        for (request, _), count in self._counts.items():
            totals[request] += count
        lines = [f"{'request':<16}{'outcome':<26}{'count':>9}{'share':>9}"]
        for (request, outcome), count in sorted(self._counts.items(), key=lambda row: (row[0][0], -row[1])):
            lines.append(f"{request:<16}{outcome:<26}{count:>9}{count / totals[request]:>9.1%}")
        return lines


TALLY = Tally()
"""This process's. Locust runs one test at a time, so there is one."""


def report_counts_to_master(data: dict[str, Any], **_: Any) -> None:
    """Listens to report_to_master, on a worker."""
    data["outcomes"] = TALLY.take()


def add_workers_counts(data: dict[str, Any], **_: Any) -> None:
    """Listens to worker_report, on the master."""
    TALLY.add(data["outcomes"])
