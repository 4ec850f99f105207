"""python -m tests.simulation --seeds N --first S [--trace]: many lives; for each that fails, its command."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter

from reservation.kinds import KINDS
from tests.simulation.plan import Loss
from tests.simulation.world import live


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many lives")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--trace", action="store_true", help="print what happens in each")
    parser.add_argument("--loss", type=Loss, choices=list(Loss), help="what the store loses in each")
    parser.add_argument("--kind", choices=list(KINDS), help="of the campaign in each")
    asked = parser.parse_args()
    gc.freeze()
    began, failed, reached = time.process_time(), 0, Counter[str]()
    for seed in range(asked.first, asked.first + asked.seeds):
        life = live(seed, asked.loss, asked.kind)
        reached.update(life.reached)
        if asked.trace:
            print("\n".join(life.trace))
        if life.violations:
            failed += 1
            print(f"seed {seed}: {life.violations[0]}")
            only = f" --loss {asked.loss}" if asked.loss else ""
            only += f" --kind {asked.kind}" if asked.kind else ""
            print(f"  replay: python -m tests.simulation --seeds 1 --first {seed}{only} --trace")
    seconds = time.process_time() - began
    rate = asked.seeds / seconds * 60
    print(f"{asked.seeds} seeds in {seconds:.1f} s of one core, {rate:,.0f} a minute; {failed} failed")
    print(", ".join(f"{what} {count}" for what, count in sorted(reached.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
