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
        add("--rounds", type=int, default=5, help="How often each is played (%(default)s).")
        add("--seed", type=int, default=1, help="Of the first round (%(default)s); the next has the next.")
        add("--rate", type=float, help="Arrivals a second, instead of what each fault says.")
        add("--seconds", type=float, help="For how many seconds shoppers come, likewise.")
        add("--quick", action="store_true", help="Only the faults that `make test` plays.")
        add("--json", type=Path, help="Write every round to this file.")
        add("--logs", type=Path, default=Path(".faults"), help="Where logs of bad rounds go (%(default)s).")
        given = parser.parse_args(arguments)
        if given.rounds < 1:
            parser.error("--rounds must be 1 or more")
        if given.rate is not None and given.rate <= 0:
            parser.error("--rate must be more than 0")
        if given.seconds is not None and given.seconds <= 0:
            parser.error("--seconds must be more than 0")
        only = tuple(filter(None, (name.strip() for name in given.only.split(","))))
        if given.only and not only:
            parser.error("--only names no fault")
        if only and given.quick:
            parser.error("--only and --quick: one of them says which")
        return cls(
            only, given.rounds, given.seed, given.rate, given.seconds, given.json, given.logs, given.quick
        )
