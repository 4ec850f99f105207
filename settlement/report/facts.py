"""What a report is made of: read from the book at one instant, and added up no further than SQL does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import cached_property
from operator import attrgetter
from typing import Any

NOT_REQUESTS = frozenset({"visit", "quoted", "waitlisted"})
"""What is counted of traffic and is no answer to who would reserve."""
NOT_REFUSALS = NOT_REQUESTS | {"held", "replayed"}


@dataclass(frozen=True, slots=True)
class Became:
    """What became of reservations. Fields are columns of report_orders.sql; money in minor units."""

    reservations: int = 0
    units: int = 0
    paid: int = 0
    orders: int = 0
    units_sold: int = 0
    gmv: int = 0
    kept: int = 0
    expired: int = 0
    offered: int = 0
    offered_paid: int = 0
    deposits: int = 0
    deposits_amount: int = 0
    completed: int = 0
    forfeits: int = 0
    forfeits_amount: int = 0
    units_used: int = 0
    taken_back: int = 0
    units_taken_back: int = 0


@dataclass(frozen=True, slots=True)
class Refunds:
    """Refunds of one sort."""

    sku: str
    tier: str | None
    reason: str
    status: str
    count: int
    amount: int


@dataclass(slots=True)
class Change:
    """By how much an offer's standing changed."""

    stock: int = 0
    taken: int = 0
    sold: int = 0
    orders: int = 0
    gmv: int = 0

    def add(self, other: Change) -> None:
        self.stock += other.stock
        self.taken += other.taken
        self.sold += other.sold
        self.orders += other.orders
        self.gmv += other.gmv


@dataclass(frozen=True)
class Facts:
    """One campaign at one instant."""

    document: dict[str, Any]
    status: str
    as_of: datetime
    visitors: int | None
    participants: int | None
    """Both as they were noted."""
    traffic: dict[tuple[datetime, str], int]
    became: dict[tuple[str, str | None], Became]
    """By offer and tier."""
    reservers: int
    payers: int
    buyers: int
    first_at: datetime | None
    """When the first reservation was made."""
    refunds: Sequence[Refunds]
    gifts: dict[tuple[str, str], int]
    """Given, by offer and gift."""
    main_orders: int | None
    """That qualify; None for what is no trade-in."""
    minutes: dict[datetime, tuple[int, int, int]]
    """Reservations made, their units, payments that succeeded."""
    changes: dict[datetime, Change]
    """By minute, of all offers."""
    steps: dict[str, dict[datetime, Change]]
    """By the end of a step, of each offer of which that is told."""
    sold_out: dict[str, datetime]

    @property
    def opens_at(self) -> datetime:
        return datetime.fromisoformat(self.document["opens_at"])

    @property
    def traffic_is_known(self) -> bool:
        """Whether traffic was noted from the beginning: not, if there were reservations before it was."""
        if self.visitors is None:
            return False
        first = min((minute for minute, _ in self.traffic), default=None)
        slack = timedelta(minutes=2)
        return self.first_at is None or (first is not None and first <= self.first_at + slack)

    def happened(self, *whats: str) -> int | None:
        """How often these happened; None where that is not known."""
        if not self.traffic_is_known:
            return None
        return sum(times for (_, what), times in self.traffic.items() if what in whats)

    def refused(self) -> Counter[str] | None:
        """Requests refused, by reason; None where that is not known."""
        if not self.traffic_is_known:
            return None
        found = Counter[str]()
        for (_, what), times in self.traffic.items():
            if what not in NOT_REFUSALS:
                found[what] += times
        return found

    def requests(self) -> int | None:
        if not self.traffic_is_known:
            return None
        return sum(times for (_, what), times in self.traffic.items() if what not in NOT_REQUESTS)

    @cached_property
    def all_became(self) -> Became:
        return total(self.became.values())

    def after_opening_s(self, at: datetime) -> float:
        """Seconds since the opening; 0 for what was before."""
        return max(0.0, (at - self.opens_at).total_seconds())


_COUNTS = attrgetter(*(field.name for field in fields(Became)))


def total(found: Iterable[Became]) -> Became:
    return Became(*map(sum, zip(*map(_COUNTS, found), strict=True)))
