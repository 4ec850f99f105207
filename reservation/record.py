"""A reservation as the store keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
import ormsgpack

from reservation.ids import PaymentId, ReservationId, Stage


class State(StrEnum):
    """Where a reservation is in its life."""

    HELD = "held"
    DEPOSIT_PAID = "deposit_paid"
    CONFIRMED = "confirmed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FORFEITED = "forfeited"
    REFUNDED = "refunded"


LIVE = frozenset({State.HELD, State.DEPOSIT_PAID})
"""States in which stock is held and not yet sold."""

SOLD = frozenset({State.CONFIRMED})
"""States in which stock is sold."""


class PaymentStatus(StrEnum):
    PENDING = "pending"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Price:
    """What a reservation costs, fixed when it is made. Amounts in minor units of `currency`."""

    currency: str
    unit: int
    total: int
    deposit: int = 0
    deposit_worth: int = 0
    discounts: tuple[tuple[str, int], ...] = ()
    balance: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "currency": self.currency,
            "unit": self.unit,
            "total": self.total,
            "deposit": self.deposit,
            "deposit_worth": self.deposit_worth,
            "discounts": [{"code": code, "amount": amount} for code, amount in self.discounts],
            "balance": self.balance,
        }


@dataclass(frozen=True, slots=True)
class Payment:
    """One stage's payment. Its id is stable, so it is one payment however often it is asked for."""

    stage: Stage
    amount: int
    status: PaymentStatus
    at_ms: int
    provider_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    """A payment given back whole."""

    stage: Stage
    amount: int
    status: RefundStatus
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the domain remembers of a reservation and the kernel carries unread."""

    kind: str
    price: Price
    payments: dict[Stage, Payment] = field(default_factory=dict)
    refunds: dict[Stage, Refund] = field(default_factory=dict)
    rejected: tuple[str, ...] = ()
    """Callbacks that were recorded and not believed, so that their repeats are not; the last few."""

    def pack(self) -> bytes:
        """JSON with short names: this is kept for every live reservation."""
        price = self.price
        packed: dict[str, Any] = {"k": self.kind, "c": price.currency, "u": price.unit, "t": price.total}
        if price.deposit or price.deposit_worth or price.balance or price.discounts:
            packed["d"] = [price.deposit, price.deposit_worth, price.balance, price.discounts]
        if self.payments:
            packed["p"] = {
                p.stage.value: [p.amount, p.status, p.at_ms, p.provider_ref] for p in self.payments.values()
            }
        if self.refunds:
            packed["r"] = {
                r.stage.value: [r.amount, r.status, r.reason, r.at_ms] for r in self.refunds.values()
            }
        if self.rejected:
            packed["x"] = self.rejected
        return orjson.dumps(packed)

    @classmethod
    def unpack(cls, packed: str | bytes) -> Facts:
        found = orjson.loads(packed)
        deposit, worth, balance, discounts = found.get("d", (0, 0, 0, ()))
        price = Price(
            found["c"],
            found["u"],
            found["t"],
            deposit,
            worth,
            tuple((code, amount) for code, amount in discounts),
            balance,
        )
        payments = {
            Stage(stage): Payment(Stage(stage), amount, PaymentStatus(status), at_ms, ref)
            for stage, (amount, status, at_ms, ref) in found.get("p", {}).items()
        }
        refunds = {
            Stage(stage): Refund(Stage(stage), amount, RefundStatus(status), reason, at_ms)
            for stage, (amount, status, reason, at_ms) in found.get("r", {}).items()
        }
        return cls(found["k"], price, payments, refunds, tuple(found.get("x", ())))


class Record(NamedTuple):
    """The record, in the order of lua/include/record.lua. Times are ms of the store's clock."""

    state: str
    version: int
    user: str
    sku: str
    quantity: int
    claims: tuple[tuple[str, int], ...]
    created_at: int
    updated_at: int
    deadline: int
    fingerprint: str
    facts: str

    @classmethod
    def unpack(cls, packed: bytes) -> Record:
        places = ormsgpack.unpackb(packed)
        flat = places[5] or ()  # cmsgpack writes an empty table as an empty map or array
        places[5] = tuple(zip(flat[::2], flat[1::2], strict=True))
        return cls(*places)


@dataclass(frozen=True, slots=True)
class Reservation:
    """One user's claim on some units of an offer."""

    id: ReservationId
    state: State
    version: int
    user: str
    sku: str
    quantity: int
    claims: tuple[tuple[str, int], ...]
    created_at_ms: int
    updated_at_ms: int
    deadline_ms: int
    facts: Facts

    @classmethod
    def of(cls, reservation_id: ReservationId, record: Record) -> Reservation:
        return cls(
            reservation_id,
            State(record.state),
            record.version,
            record.user,
            record.sku,
            record.quantity,
            record.claims,
            record.created_at,
            record.updated_at,
            record.deadline,
            Facts.unpack(record.facts),
        )

    def payment_id(self, stage: Stage) -> PaymentId:
        return PaymentId(self.id, stage)
