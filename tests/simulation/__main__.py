"""python -m tests.simulation --seeds N --first S [--trace]: many lives; for each that fails, its command."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat

from reservation.kinds import KINDS
from tests.simulation.plan import Loss
from tests.simulation.world import Life, live

CHUNK = 10
"""Lives that a process is given at a time: a few seconds' work."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What each life is to be like."""

    loss: Loss | None
    kind: str | None
    trace: bool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many lives")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one for each core")
    parser.add_argument("--trace", action="store_true", help="print what happens in each")
    parser.add_argument("--loss", type=Loss, choices=list(Loss), help="what the store loses in each")
    parser.add_argument("--kind", choices=list(KINDS), help="of the campaign in each")
    args = parser.parse_args()
    if args.seeds < 1 or args.jobs < 1:
        parser.error("--seeds and --jobs must be 1 or more")
    asked = Asked(args.loss, args.kind, args.trace)
    seeds = range(args.first, args.first + args.seeds)
    gc.freeze()
    began, failed, reached = time.monotonic(), 0, Counter[str]()
    with ProcessPoolExecutor(args.jobs) as processes:
        for life in processes.map(_live, repeat(asked), seeds, chunksize=CHUNK):
            reached.update(life.reached)
            if asked.trace:
                print("\n".join(life.trace))
            if life.violations:
                failed += 1
                print(f"seed {life.seed}: {life.violations[0]}")
                only = f" --loss {asked.loss}" if asked.loss else ""
                only += f" --kind {asked.kind}" if asked.kind else ""
                print(f"  replay: python -m tests.simulation --seeds 1 --first {life.seed}{only} --trace")
    seconds = time.monotonic() - began
    rate = args.seeds / seconds * 60
    by = f"{args.jobs} processes, {rate:,.0f} a minute"
    print(f"{args.seeds} seeds in {seconds:.1f} s by {by}; {failed} failed")
    print(", ".join(f"{what} {count}" for what, count in sorted(reached.items())))
    return 1 if failed else 0


def _live(asked: Asked, seed: int) -> Life:
    life = live(seed, asked.loss, asked.kind)
    return life if asked.trace else replace(life, trace=[])


if __name__ == "__main__":
    sys.exit(main())
