"""Main orders: what was paid for elsewhere, and entitles to trade-ins here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import AfterValidator, Field

from reservation.campaign import MONEY_MAX, Document, Instant, Text, ms_of, no_path

LINES_MAX = 500
KEPT_MS = 180 * 24 * 3_600_000
"""A main order that nothing has happened to for so long is forgotten, and grants nothing any more."""
OrderId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$"), AfterValidator(no_path)]


class ReportedLine(Document):
    sku: Text
    category: Text | None = None
    amount: Annotated[int, Field(ge=0, le=MONEY_MAX)]


class ReportedOrder(Document):
    """A paid main order as a service reports it. Reported again, it says what is left of it."""

    order_id: OrderId
    user: Annotated[Text, Field(max_length=128)]
    lines: Annotated[list[ReportedLine], Field(max_length=LINES_MAX)]
    paid_at: Instant


class OrderState(StrEnum):
    PAID = "paid"
    CANCELLED = "cancelled"


class OrderLine(NamedTuple):
    """What was paid for one SKU, in minor units."""

    sku: str
    category: str | None
    amount: int


@dataclass(frozen=True, slots=True)
class MainOrder:
    """What is known of a main order. Reports may come twice and in any order: it only ever shrinks."""

    id: str
    state: OrderState
    user: str | None = None
    """None while only its cancellation is known."""
    lines: tuple[OrderLine, ...] = ()
    paid_at_ms: int = 0
    campaigns: tuple[str, ...] = ()
    """Where it has been used: what it grants there is taken back when it shrinks."""
    version: int = 0

    @classmethod
    def of(cls, report: ReportedOrder) -> MainOrder:
        amounts: Counter[tuple[str, str | None]] = Counter()
        for line in report.lines:
            amounts[line.sku, line.category] += line.amount
        lines = tuple(OrderLine(*name, amount) for name, amount in sorted(amounts.items(), key=str))
        return cls(report.order_id, OrderState.PAID, report.user, lines, ms_of(report.paid_at))

    def merged(self, report: MainOrder) -> MainOrder:
        """With a report taken in: of each line the lesser amount, so that their order does not matter."""
        if self.user is None:
            return replace(report, state=self.state, version=self.version, campaigns=self.campaigns)
        reported = {line[:2]: line.amount for line in report.lines}
        left = (line for line in self.lines if line[:2] in reported)
        return replace(
            self, lines=tuple(line._replace(amount=min(line.amount, reported[line[:2]])) for line in left)
        )

    def joined(self, other: MainOrder) -> MainOrder:
        """With what somebody else knows of it: as an order only ever shrinks, whatever either knows holds."""
        both = self if other.user is None else self.merged(other)
        state = OrderState.CANCELLED if OrderState.CANCELLED in (self.state, other.state) else self.state
        return replace(both, state=state, campaigns=tuple(dict.fromkeys((*self.campaigns, *other.campaigns))))

    def says_as(self, other: MainOrder) -> bool:
        """Whether both say the same of what was reported; where it was used, and the version, apart."""
        return (self.state, self.user, sorted(self.lines, key=str)) == (
            other.state,
            other.user,
            sorted(other.lines, key=str),
        )

    def cancelled(self) -> MainOrder:
        return replace(self, state=OrderState.CANCELLED)

    def spent_on(self, skus: Collection[str] | None, categories: Collection[str] | None) -> int:
        """What it paid for designated SKUs or categories; for everything where none are designated."""
        if self.state is OrderState.CANCELLED:
            return 0
        counted: Iterable[OrderLine] = self.lines
        if skus or categories:
            counted = (
                line for line in self.lines if line.sku in (skus or ()) or line.category in (categories or ())
            )
        return sum(line.amount for line in counted)

    def pack(self) -> bytes:
        body: dict[str, Any] = {
            "state": self.state,
            "user": self.user,
            "lines": [tuple(line) for line in self.lines],
            "paid_at": self.paid_at_ms,
            "campaigns": self.campaigns,
        }
        return orjson.dumps(body)

    @classmethod
    def unpack(cls, order_id: str, version: int, packed: bytes) -> MainOrder:
        body = orjson.loads(packed)
        lines = tuple(OrderLine(*line) for line in body["lines"])
        return cls(
            order_id,
            OrderState(body["state"]),
            body["user"],
            lines,
            body["paid_at"],
            tuple(body["campaigns"]),
            version,
        )
