"""What a run is asked to do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

BUILT = Path(__file__).parents[2] / ".bench"
"""Where scripts/install-bench builds, and figures go."""


@dataclass(frozen=True, slots=True)
class Options:
    rounds: int
    seconds: int
    warm_up_seconds: int
    connections: int
    subjects: tuple[str, ...]
    """Names; none is all that are installed."""
    reservations: int
    """Live ones in the full store."""
    campaigns: int
    """In the store with many."""
    backlog: int
    """Reservations that are settled as after an outage."""
    parts: tuple[str, ...]
    """Names; none is all."""
    attempts: int
    """A run that other processes disturbed is made again, until there were so many."""
    figures: Path
    picture: Path

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None) -> Options:
        parser = argparse.ArgumentParser("python -m loadtests.bench", description=__doc__)
        parser.add_argument(
            "--rounds", type=_at_least(1), default=5, help="each subject runs once in a round"
        )
        parser.add_argument("--seconds", type=_at_least(1), default=5, help="measured, each time")
        parser.add_argument("--warm-up-seconds", type=_at_least(0), default=1, help="before that")
        parser.add_argument(
            "--connections", type=_at_least(1), default=64, help="each with a request under way"
        )
        parser.add_argument("--subject", action="append", default=[], help="only this one; may be repeated")
        parser.add_argument("--part", action="append", default=[], help="only this one; may be repeated")
        parser.add_argument("--reservations", type=_at_least(1), default=5_000_000, help="in the full store")
        parser.add_argument("--campaigns", type=_at_least(1), default=10_000, help="in the store with many")
        parser.add_argument(
            "--backlog", type=_at_least(1), default=200_000, help="reservations to be settled at once"
        )
        parser.add_argument("--attempts", type=_at_least(1), default=3, help="at a run that others disturb")
        parser.add_argument("--figures", type=Path, default=BUILT / "figures.json", help="written at the end")
        parser.add_argument("--picture", type=Path, default=BUILT / "figures.svg", help="likewise")
        given = parser.parse_args(arguments)
        return cls(
            rounds=given.rounds,
            seconds=given.seconds,
            warm_up_seconds=given.warm_up_seconds,
            connections=given.connections,
            subjects=tuple(given.subject),
            reservations=given.reservations,
            campaigns=given.campaigns,
            backlog=given.backlog,
            parts=tuple(given.part),
            attempts=given.attempts,
            figures=given.figures,
            picture=given.picture,
        )


def _at_least(least: int) -> Callable[[str], int]:
    def number(given: str) -> int:
        found = int(given)
        if found < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return found

    return number
