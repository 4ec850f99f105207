"""Whether what is counted of a campaign is what its reservations claim."""

from __future__ import annotations

from collections import Counter

from reservation.kernel import Miscount, Snapshot


def miscounts(snapshot: Snapshot) -> list[Miscount]:
    """Counters that are not what the reservations claim of them. None, when all is well."""
    claimed, tallied = Counter[str](), Counter[str]()
    for one in snapshot.reservations:
        tallied[f"{one.state}/{one.sku}"] += one.quantity
        for name, n in one.claims:
            claimed[name + one.user if name.endswith("@") else name] += n
    counted = {name: n for name, n in snapshot.tally.items() if not name.startswith("waiting/")}
    return [
        Miscount(name, mine[name], theirs.get(name, 0), mine is tallied)
        for mine, theirs in ((claimed, snapshot.used), (tallied, counted))
        for name in sorted(mine.keys() | theirs.keys())
        if mine[name] != theirs.get(name, 0)
    ]
