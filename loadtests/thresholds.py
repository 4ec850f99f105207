"""What a run must keep: each is said to be kept or broken, with its value. Pure: no Locust in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.stages import Stage
from loadtests.timeline import Row, busy, count, failures, of_request, percentile_ms

RESERVE = "reserve"


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of a run."""

    failures_share: float = 0.0
    """Of all requests, those whose answer the contract does not allow."""
    overloaded_share: float = 0.05
    """Of all requests, those that were told to come back later."""
    p99_ms: float = 2_000.0
    """Of reserving, as shoppers see it."""
    requests_per_s: float = 0.0
    """At least so many, in the mean of the whole run."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A threshold and what was found. `value` is None where nothing was measured."""

    name: str
    limit: str
    value: str
    kept: bool

    def __str__(self) -> str:
        return f"{self.name:<34}{self.limit:>12}{self.value:>12}  {'kept' if self.kept else 'BROKEN'}"


def check(rows: Sequence[Row], limits: Limits, seconds: float) -> list[Checked]:
    """What a run of so many seconds kept."""
    total = count(rows)
    failed, told_busy = (part(rows) / total if total else 0.0 for part in (failures, busy))
    p99_ms = percentile_ms(of_request(rows, RESERVE), 99)
    per_s = total / seconds if seconds else 0.0
    found = [
        Checked(
            "answers outside the contract",
            f"<= {limits.failures_share:.2%}",
            f"{failed:.2%}",
            failed <= limits.failures_share,
        ),
        Checked(
            "told to come back later",
            f"<= {limits.overloaded_share:.2%}",
            f"{told_busy:.2%}",
            told_busy <= limits.overloaded_share,
        ),
        Checked(
            "reserve, p99",
            f"<= {limits.p99_ms:g} ms",
            "none made" if p99_ms is None else f"{p99_ms:g} ms",
            p99_ms is None or p99_ms <= limits.p99_ms,
        ),
    ]
    if limits.requests_per_s:
        kept = per_s >= limits.requests_per_s
        found.append(Checked("requests", f">= {limits.requests_per_s:g}/s", f"{per_s:.1f}/s", kept))
    return found


@dataclass(frozen=True, slots=True)
class Climb:
    """How far a ramp got: the last step that kept the thresholds, the first that did not, and how."""

    held: Stage | None
    broke: Stage | None
    checked: list[Checked]
    """Of the step that broke."""

    def lines(self) -> list[str]:
        if self.broke is None:
            more = f"; the break is beyond {self.held.users} shoppers" if self.held else ""
            return [f"ramp: every step held{more}"]
        held = (
            f"{self.held.users} shoppers ({self.held.name}) held" if self.held else "not even the first held"
        )
        broken = [f"  {one}" for one in self.checked if not one.kept]
        return [f"ramp: {held}; broke at {self.broke.users} ({self.broke.name}):", *broken]


def climb(
    rows: Sequence[Row], stages: Sequence[Stage], limits: Limits, began_s: float, known_until_s: float
) -> Climb:
    """Of the steps that are over, as far as all their rows have come in. Times are since the epoch."""
    held: Stage | None = None
    at_s = began_s
    for stage in stages:
        until_s = at_s + stage.seconds
        if until_s > known_until_s:
            break
        if stage.name.startswith("step"):
            # Without its first second, in which the new shoppers are made.
            own = [row for row in rows if int(at_s) + 1 <= row[0] < int(until_s)]
            checked = check(own, limits, max(1.0, stage.seconds - 1))
            if not count(own):
                checked.append(Checked("requests", "> 0", "none", kept=False))
            if not all(one.kept for one in checked):
                return Climb(held, stage, checked)
            held = stage
        at_s = until_s
    return Climb(held, None, [])
