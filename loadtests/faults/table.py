"""The matrix as a table: a fault, its rounds, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.box import SIMPLE
from rich.table import Table

from loadtests.faults.round import Outcome

COLUMNS = (
    "rounds",
    "acknowledged",
    "settled",
    "lost",
    "admitted",
    "oversold",
    "double",
    "recovers s",
    "settles s",
    "",
)


def table(outcomes: Iterable[Outcome]) -> Table:
    """A row a fault. The times are the longest of its rounds."""
    found = Table(title="Faults", title_justify="left", box=SIMPLE)
    found.add_column("fault", no_wrap=True)
    for column in COLUMNS:
        found.add_column(column, justify="right", no_wrap=True)
    by_fault: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_fault.setdefault(one.fault, []).append(one)
    for name, rounds in by_fault.items():
        found.add_row(name, *cells(rounds))
    return found


def cells(rounds: Sequence[Outcome]) -> list[str]:
    def total(of: Callable[[Outcome], int]) -> str:
        return f"{sum(of(one) for one in rounds):,}"

    return [
        str(len(rounds)),
        total(lambda one: one.verdict.acknowledged),
        total(lambda one: one.verdict.settled),
        total(lambda one: one.verdict.lost),
        total(lambda one: one.verdict.admitted),
        total(lambda one: one.verdict.oversold),
        total(lambda one: one.verdict.double),
        _longest([one.recovered_s for one in rounds]),
        _longest([one.settled_s for one in rounds]),
        _word(rounds),
    ]


def _longest(times: Sequence[float | None]) -> str:
    known = [time for time in times if time is not None]
    return f"{max(known):.1f}" if known else "–"


def _word(rounds: Sequence[Outcome]) -> str:
    if any(not one.verdict.ok for one in rounds):
        return "BAD"
    return "missed" if any(one.missed for one in rounds) else "ok"
