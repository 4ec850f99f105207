"""A reservation as the store keeps it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
import ormsgpack

from reservation.ids import PaymentId, ReservationId, Stage, numbered


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


GIFT = "gift/"
"""How the counters of gifts begin: gift/offer/gift, and with @ the one by user."""


class PaymentStatus(StrEnum):
    PENDING = "pending"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Price:
    """What a reservation costs, all of it, fixed when it is made. Amounts in minor units of `currency`."""

    currency: str
    unit: int
    total: int
    """unit x quantity, before any discount."""
    deposit: int = 0
    deposit_worth: int = 0
    """What the deposit counts for when the balance is paid."""
    discounts: tuple[tuple[str, int], ...] = ()
    balance: int = 0

    def amount(self, stage: Stage) -> int:
        """What a stage's payment comes to."""
        if stage is Stage.DEPOSIT:
            return self.deposit
        if stage is Stage.BALANCE:
            return self.balance
        return self.total - sum(amount for _, amount in self.discounts)

    @property
    def payable(self) -> int:
        """What has been paid once everything has."""
        return self.deposit + self.balance if self.deposit else self.amount(Stage.FULL)

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

    def pack(self) -> list[Any]:
        """A list in the order of the fields, without the last ones that are nothing."""
        packed = list(astuple(self))
        while not packed[-1]:
            packed.pop()
        return packed

    @classmethod
    def unpack(cls, packed: list[Any]) -> Price:
        price = cls(*packed)
        return replace(price, discounts=tuple((code, amount) for code, amount in price.discounts))


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment of a stage. Its id is stable, so it is one payment however often it is asked for."""

    name: str
    """The stage; with a number from the second payment of a stage on: deposit-2."""
    amount: int
    status: PaymentStatus
    at_ms: int
    provider_ref: str | None = None

    @property
    def stage(self) -> Stage:
        return Stage(self.name.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Refund:
    """A payment given back, or a part of one."""

    name: str
    """payment.refund; with a number from the second refund of a payment on: deposit.refund-2."""
    amount: int
    status: RefundStatus
    reason: str
    at_ms: int

    @property
    def payment(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Agreed:
    """A quantity and its price: what a change falls back to while its difference is not paid."""

    quantity: int
    price: Price


@dataclass(frozen=True, slots=True)
class Facts:
    """What the domain remembers of a reservation and the kernel carries unread."""

    kind: str
    price: Price
    payments: dict[str, Payment] = field(default_factory=dict)
    """By name."""
    refunds: dict[str, Refund] = field(default_factory=dict)
    """By name."""
    rejected: tuple[str, ...] = ()
    """Callbacks that were recorded and not believed, so that their repeats are not; the last few."""
    items: tuple[tuple[str, int], ...] = ()
    """A bundle's SKUs and how many of each make one unit; empty when the offer is what is sold."""
    order_id: str | None = None
    """The main order that this is a trade-in to."""
    before: Agreed | None = None
    """What was agreed before the last change, while the change's difference is not paid."""
    kept: int = 0
    """What was received and, by the campaign's rules, is not given back."""
    reminded: tuple[str, ...] = ()
    """Reminders that were sent."""

    @property
    def received(self) -> int:
        """What was charged and not given back."""
        charged = sum(p.amount for p in self.payments.values() if p.status is PaymentStatus.SUCCEEDED)
        return charged - sum(refund.amount for refund in self.refunds.values())

    @property
    def standing(self) -> int:
        """What of it counts for this reservation: not what was kept as lost."""
        return self.received - self.kept

    @property
    def standing_deposit(self) -> int:
        """What of the deposits counts for this reservation: neither given back nor kept as lost."""
        deposits = (p for p in self.payments.values() if p.stage is Stage.DEPOSIT)
        return sum(self.left_of(p) for p in deposits) - self.kept

    def left_of(self, payment: Payment) -> int:
        """What of this payment was charged and not given back."""
        if payment.status is not PaymentStatus.SUCCEEDED:
            return 0
        returned = (refund.amount for refund in self.refunds.values() if refund.payment == payment.name)
        return payment.amount - sum(returned)

    def with_payment(self, payment: Payment) -> Facts:
        return replace(self, payments={**self.payments, payment.name: payment})

    def with_refund(self, payment: Payment, amount: int, reason: str, at_ms: int) -> Facts:
        """Give back `amount` of a payment; nothing if that is nothing."""
        if amount <= 0:
            return self
        number = 1 + sum(refund.payment == payment.name for refund in self.refunds.values())
        name = f"{payment.name}.{numbered('refund', number)}"
        refund = Refund(name, amount, RefundStatus.PENDING, reason, at_ms)
        return replace(self, refunds={**self.refunds, name: refund})

    def with_refunds(self, stages: Collection[Stage], amount: int, reason: str, at_ms: int) -> Facts:
        """Give back `amount` of what was received for these stages, newest payment first."""
        facts = self
        for payment in reversed(self.payments.values()):
            if payment.stage in stages:
                part = min(amount, self.left_of(payment))
                facts = facts.with_refund(payment, part, reason, at_ms)
                amount -= part
        return facts

    def pack(self) -> bytes:
        """JSON with short names, and nothing of what there is not: this is kept for every reservation."""
        packed: dict[str, Any] = {"k": self.kind, "c": self.price.pack()}
        if self.payments:
            packed["p"] = {
                p.name: [p.amount, p.status, p.at_ms, p.provider_ref] for p in self.payments.values()
            }
        if self.refunds:
            packed["r"] = {r.name: [r.amount, r.status, r.reason, r.at_ms] for r in self.refunds.values()}
        if self.before:
            packed["b"] = [self.before.quantity, self.before.price.pack()]
        rare = {"x": self.rejected, "i": self.items, "o": self.order_id, "f": self.kept, "m": self.reminded}
        packed |= {name: value for name, value in rare.items() if value}
        return orjson.dumps(packed)

    @classmethod
    def unpack(cls, packed: str | bytes) -> Facts:
        found = orjson.loads(packed)
        before = found.get("b")
        return cls(
            kind=found["k"],
            price=Price.unpack(found["c"]),
            payments={
                name: Payment(name, amount, PaymentStatus(status), at_ms, ref)
                for name, (amount, status, at_ms, ref) in found.get("p", {}).items()
            },
            refunds={
                name: Refund(name, amount, RefundStatus(status), reason, at_ms)
                for name, (amount, status, reason, at_ms) in found.get("r", {}).items()
            },
            rejected=tuple(found.get("x", ())),
            items=tuple((sku, count) for sku, count in found.get("i", ())),
            order_id=found.get("o"),
            before=Agreed(before[0], Price.unpack(before[1])) if before else None,
            kept=found.get("f", 0),
            reminded=tuple(found.get("m", ())),
        )


class MadeOn(NamedTuple):
    """What reservations made on the same terms have in common, in the order of lua/include/record.lua."""

    sku: str
    quantity: int
    state: str
    claims: list[Any]
    """Flat: counter, n, counter, n, ..."""
    hold_ms: int
    fingerprint: str
    facts: str

    def pack(self) -> bytes:
        return ormsgpack.packb(tuple(self))

    @classmethod
    def unpack(cls, packed: bytes) -> MadeOn:
        return cls(*ormsgpack.unpackb(packed))

    def record(self, user: str, created_at_ms: int) -> Record:
        """The record of a reservation that nothing has happened to since it was made."""
        deadline = created_at_ms + self.hold_ms if self.hold_ms else 0
        claims = _pairs(self.claims)
        made = created_at_ms
        return Record(
            self.state, 1, user, self.sku, self.quantity, claims, made, made, deadline, self.fingerprint,
            self.facts,
        )  # fmt: skip


def _pairs(flat: list[Any]) -> tuple[tuple[str, int], ...]:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


class ShortRecord(NamedTuple):
    """What is kept of a reservation while nothing has happened to it since it was made."""

    terms: str
    """The name that the campaign keeps its terms under."""
    user: str
    created_at: int


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

    def pack(self) -> bytes:
        claims = [part for claim in self.claims for part in claim]
        return ormsgpack.packb(tuple(self._replace(claims=claims)))  # type: ignore[arg-type]

    @classmethod
    def of(cls, places: list[Any]) -> Record:
        """From the unpacked places of a whole record."""
        places[5] = _pairs(places[5] or [])  # cmsgpack writes an empty table as an empty map or array
        return cls(*places)


def unpack_record(packed: bytes) -> Record | ShortRecord:
    places = ormsgpack.unpackb(packed)
    return ShortRecord(*places) if len(places) == len(ShortRecord._fields) else Record.of(places)


def own_counters(campaign: str, user: str, packed: bytes | None) -> dict[str, int]:
    """A user's own counters in this campaign, from what the shard keeps of them (lua/include/users.lua)."""
    own = ormsgpack.unpackb(packed).get(campaign, ()) if packed else ()
    return {f"{name}{user}": n for name, n in zip(own[1::2], own[2::2], strict=True)}


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
    def of(cls, reservation_id: ReservationId, record: Record, facts: Facts | None = None) -> Reservation:
        """`facts` are those of the record, where somebody has unpacked them before."""
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
            facts or Facts.unpack(record.facts),
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What fulfilment ships: a bundle's SKUs, or the offer itself, and the gifts."""
        items = self.facts.items or ((self.sku, 1),)
        lines: list[dict[str, Any]] = [
            {"sku": sku, "quantity": count * self.quantity} for sku, count in items
        ]
        for counter, n in self.claims:
            if counter.startswith(GIFT) and not counter.endswith("@"):
                lines.append({"sku": counter.rpartition("/")[2], "quantity": n, "gift": True})
        if self.facts.order_id:
            lines = [{**line, "main_order_id": self.facts.order_id} for line in lines]
        return lines

    def payment_id(self, name: str) -> PaymentId:
        return PaymentId(self.id, name)

    def refund_id(self, refund: Refund) -> str:
        return f"{self.id}.{refund.name}"


class KnownTerms:
    """Terms that reservations were made on."""

    def __init__(self, made_on: MadeOn) -> None:
        self._made_on = made_on
        self._facts = Facts.unpack(made_on.facts)

    def reservation(self, reservation_id: ReservationId, user: str, created_at_ms: int) -> Reservation:
        """One that nothing has happened to since it was made."""
        return Reservation.of(reservation_id, self._made_on.record(user, created_at_ms), self._facts)
