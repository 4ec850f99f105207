"""What a run of the matrix is asked to do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    only: tuple[str, ...]
    """Names of faults; none is all."""
    rounds: int
    seed: int
    rate: float | None
    seconds: float | None
    json: Path | None
    logs: Path
    """Where the clients' log of a round that went wrong is written."""
    quick: bool

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None) -> Options:
        parser = argparse.ArgumentParser(prog="python -m loadtests.faults", description=__doc__)
        add = parser.add_argument
        add("--only", default="", help="Names of faults, with commas between them; all when left out.")
        add("--rounds", type=int, default=5, help="How often each is played.")
        add("--seed", type=int, default=1, help="Of the first round; the next has the next one.")
        add("--rate", type=float, help="Arrivals a second, instead of what each fault says.")
        add("--seconds", type=float, help="How long shoppers come, likewise.")
        add("--quick", action="store_true", help="Only the faults that `make test` plays.")
        add("--json", type=Path, help="Write every round to this file.")
        add("--logs", type=Path, default=Path(".faults"), help="Where clients' logs of bad rounds go.")
        given = parser.parse_args(arguments)
        if given.rounds < 1:
            parser.error("--rounds must be 1 or more")
        only = tuple(name for name in given.only.split(",") if name)
        return cls(
            only, given.rounds, given.seed, given.rate, given.seconds, given.json, given.logs, given.quick
        )
