"""The audit: every invariant, across the store and the book.

I1 held + sold + available = stock      I5 no order without a reservation
I2 held + sold <= stock                 I6 same key, same answer (the client's log shows it)
I3 nobody beyond a quota                I7 at most one charge a stage, and one refund for a charge on
I4 each reservation is one order           a reservation that ended
I9 no gift or entitlement beyond its number
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from reservation.campaign import stock_counter
from reservation.catalog import parse_campaign
from reservation.ids import ReservationId
from reservation.kernel import Snapshot, Store
from reservation.miscounts import miscounts
from reservation.record import LIVE, SOLD, PaymentStatus, Reservation, State
from settlement.book import Book, OrderAudit, pages

SETTLE_SECONDS_MAX = 15.0
"""How long an audit waits for events on their way before it calls a difference a violation."""
_VIOLATIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    detail: str


@dataclass(frozen=True, slots=True)
class OfferAudit:
    """Units of one offer. stock = held + sold + available, when all is well."""

    sku: str
    stock: int
    held: int
    sold: int
    available: int


@dataclass(slots=True)
class CampaignAudit:
    id: str
    offers: list[OfferAudit] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def violate(self, invariant: str, detail: str) -> None:
        self.violations.append(Violation(invariant, detail))

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "offers": [
                {
                    "sku": o.sku,
                    "stock": o.stock,
                    "held": o.held,
                    "sold": o.sold,
                    "available": o.available,
                }
                for o in self.offers
            ],
            "violations": [
                {"invariant": v.invariant, "detail": v.detail} for v in self.violations[:_VIOLATIONS_MAX]
            ],
        }


@dataclass(slots=True)
class Audit:
    campaigns: list[CampaignAudit]

    @property
    def ok(self) -> bool:
        return not any(campaign.violations for campaign in self.campaigns)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "campaigns": [campaign.to_json() for campaign in self.campaigns]}


class Auditor:
    """Checks campaigns while they run: it reads the store at one instant, and waits for the book."""

    def __init__(self, store: Store, book: Book, *, settle_seconds_max: float = SETTLE_SECONDS_MAX) -> None:
        self._store = store
        self._book = book
        self._settle_seconds_max = settle_seconds_max

    async def audit(self, campaigns: Sequence[str]) -> Audit:
        """Raises StoreUnavailable, BookUnavailable."""
        return Audit([await self._campaign(campaign) for campaign in campaigns])

    async def _campaign(self, campaign_id: str) -> CampaignAudit:
        audit = CampaignAudit(campaign_id)
        snapshot = await self._store.snapshot(campaign_id)
        stored = await self._store.campaign(campaign_id)
        if snapshot is None or stored is None:
            audit.violate("I4", "the book knows this campaign and the store does not")
            return audit
        document = parse_campaign(orjson.loads(stored.document))
        orders = await self._settled(campaign_id, snapshot)
        quotas = await self._book.quotas(campaign_id)
        unfinished = set(await self._store.unfinished_orders())
        promises = await self._book.promises(campaign_id)

        def check() -> None:
            _check_offers(audit, snapshot, [offer.sku for offer in document.offers])
            _check_counters(audit, snapshot)
            _check_quotas(audit, snapshot, quotas)
            _check_promises(audit, snapshot, promises, unfinished)
            _check_orders(audit, snapshot, orders)

        # A million reservations take seconds, and a gateway has others to serve.
        await asyncio.to_thread(check)
        await self._check_strangers(audit, snapshot, orders)
        return audit

    async def _settled(self, campaign_id: str, snapshot: Snapshot) -> dict[str, OrderAudit]:
        """The book's orders once it has caught up with the snapshot, or as far as it got in time."""
        until = time.monotonic() + self._settle_seconds_max
        while True:
            orders = await self._book.audit_orders(campaign_id)
            if not await asyncio.to_thread(_behind, orders, snapshot) or time.monotonic() > until:
                return orders
            await asyncio.sleep(0.1)

    async def _check_strangers(
        self, audit: CampaignAudit, snapshot: Snapshot, orders: dict[str, OrderAudit]
    ) -> None:
        """Orders made after the snapshot are looked up; what the store never had is a violation."""
        strangers = await asyncio.to_thread(_strangers, orders, snapshot)
        for page in pages(strangers):
            for one, there in zip(page, await self._store.reservations(page), strict=True):
                if there is None:
                    audit.violate("I5", f"{one}: the book has an order, the store has no reservation")


def _strangers(orders: dict[str, OrderAudit], snapshot: Snapshot) -> list[ReservationId]:
    """Orders whose reservations are not in the snapshot."""
    named = sorted(orders.keys() - {str(one.id) for one in snapshot.reservations})
    return [one for one in map(ReservationId.parse, named) if one is not None]


def _behind(orders: dict[str, OrderAudit], snapshot: Snapshot) -> bool:
    """Whether something of the snapshot is still on its way to the book."""
    return any(
        (order := orders.get(str(one.id))) is None
        or order.version < one.version
        or order.events < one.version
        for one in snapshot.reservations
    )


def _check_offers(audit: CampaignAudit, snapshot: Snapshot, skus: Sequence[str]) -> None:
    held, sold = _units(snapshot.reservations, LIVE), _units(snapshot.reservations, SOLD)
    for sku in dict.fromkeys([*skus, *held, *sold]):
        counter = stock_counter(sku)
        stock, used = snapshot.caps.get(counter, 0), snapshot.used.get(counter, 0)
        offer = OfferAudit(sku, stock, held[sku], sold[sku], stock - used)
        audit.offers.append(offer)
        if offer.held + offer.sold + offer.available != stock:
            audit.violate(
                "I1",
                f"{sku}: {offer.held} held + {offer.sold} sold + {offer.available} available != {stock}",
            )
        if offer.held + offer.sold > stock:
            audit.violate("I2", f"{sku}: {offer.held} held + {offer.sold} sold > {stock} stock")


def _units(reservations: Iterable[Reservation], states: frozenset[State]) -> Counter[str]:
    units = Counter[str]()
    for one in reservations:
        if one.state in states:
            units[one.sku] += one.quantity
    return units


def _check_counters(audit: CampaignAudit, snapshot: Snapshot) -> None:
    """Every counter is exactly what the reservations claim of it, and every tally the units by record."""
    for one in miscounts(snapshot):
        if one.tallied:
            detail = f"{one.claimed} units by record, {one.counted} by tally"
        else:
            detail = f"{one.claimed} claimed, {one.counted} counted"
        audit.violate("I1", f"{one.counter}: {detail}")


def _check_quotas(audit: CampaignAudit, snapshot: Snapshot, quotas: dict[str | None, int | None]) -> None:
    taken = Counter[tuple[str | None, str]]()
    for one in snapshot.reservations:
        if one.state in LIVE | SOLD:
            taken[None, one.user] += one.quantity
            taken[one.sku, one.user] += one.quantity
    for (sku, user), units in sorted(taken.items(), key=str):
        quota = quotas.get(sku)
        if quota is not None and units > quota:
            audit.violate("I3", f"user {user} has {units} of {sku or 'the campaign'}, the quota is {quota}")


def _check_promises(
    audit: CampaignAudit, snapshot: Snapshot, promises: dict[str, int], unfinished: set[str]
) -> None:
    """Gifts and entitlements: never more than were ever promised, and none of what was taken back."""
    for counter, used in sorted(snapshot.used.items()):
        if counter in promises and used > promises[counter]:
            audit.violate("I9", f"{counter}: {used} given, {promises[counter]} promised")
        if not counter.startswith("entitlement"):
            continue
        granted, order_id = promises.get("entitlement", 0), counter.partition(":")[2]
        if used > granted:
            audit.violate("I9", f"{counter}: {used} used, {granted} granted")
        if snapshot.caps.get(counter) == 0 and order_id not in unfinished:
            audit.violate("I9", f"{counter}: {used} used of what was taken back")


def _check_orders(audit: CampaignAudit, snapshot: Snapshot, orders: dict[str, OrderAudit]) -> None:
    for one in snapshot.reservations:
        name = str(one.id)
        order = orders.get(name)
        if order is None:
            audit.violate("I4", f"{name}: {one.state} in the store, and no order in the book")
            continue
        if order.version < one.version:
            audit.violate("I4", f"{name}: version {one.version} in the store, {order.version} in the book")
        elif order.version == one.version and (order.state, order.quantity, order.sku, order.user) != (
            one.state,
            one.quantity,
            one.sku,
            one.user,
        ):
            audit.violate("I4", f"{name}: {one.state} in the store, {order.state} in the book")
        if order.version == one.version:
            if order.events != order.version:
                audit.violate("I4", f"{name}: {order.events} events lead to version {order.version}")
            _check_money(audit, one, order)


def _check_money(audit: CampaignAudit, one: Reservation, order: OrderAudit) -> None:
    name, facts = str(one.id), one.facts
    charged = sum(p.amount for p in facts.payments.values() if p.status is PaymentStatus.SUCCEEDED)
    returned = charged - facts.received
    if (order.paid, order.payments_succeeded) != (charged, charged):
        audit.violate(
            "I7", f"{name}: charged {charged}, the book says {order.paid} and {order.payments_succeeded}"
        )
    if (order.refunded, order.refunds) != (returned, returned):
        audit.violate(
            "I7", f"{name}: refunded {returned}, the book says {order.refunded} and {order.refunds}"
        )
    if any(facts.left_of(payment) < 0 for payment in facts.payments.values() if charged):
        audit.violate("I7", f"{name}: more was refunded of a payment than was charged")
    agreed = facts.before.price if facts.before else facts.price
    owed = {State.CONFIRMED: agreed.payable, State.DEPOSIT_PAID: agreed.deposit}.get(one.state, 0)
    if facts.standing != owed:
        audit.violate(
            "I7",
            f"{name}: {one.state} for {owed}, charged {charged}, refunded {returned}, kept {facts.kept}",
        )
