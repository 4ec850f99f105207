"""python -m tests.simulation.catching: how many seeds it takes until each planted bug is caught."""

from __future__ import annotations

import sys

from tests.simulation.bugs import BUGS
from tests.simulation.world import live

SEEDS_MAX = 500
BASES = (1, 10_001, 20_001)


def caught_by(bug: str, first: int = 1, seeds_max: int = SEEDS_MAX) -> tuple[int, str] | None:
    """The first seed that catches it, and what the checker says; None when none does."""
    with BUGS[bug].planted():
        for seed in range(first, first + seeds_max):
            violations = live(seed, BUGS[bug].loss, BUGS[bug].kind).violations
            if violations:
                return seed, violations[0]
    return None


def main() -> int:
    missed = 0
    for name in sys.argv[1:] or BUGS:
        counts, said = [], set[str]()
        for first in BASES:
            caught = caught_by(name, first)
            missed += caught is None
            counts.append(str(caught[0] - first + 1) if caught else f"not in {SEEDS_MAX}")
            said |= {caught[1].partition(":")[0]} if caught else set()
        where = ", ".join(filter(None, (BUGS[name].kind, BUGS[name].loss)))
        print(f"| `{name}` | {where} | {', '.join(counts)} | {', '.join(sorted(said))} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
