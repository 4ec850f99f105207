"""The judge: what clients were told, held against the book and the audit. Pure, but for `read_book`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

import psycopg

from loadtests.faults.log import ClientLog, Told
from loadtests.faults.provider import Provider

HOLDS = frozenset({"held", "deposit_paid", "confirmed"})
"""States in which a reservation has its units."""
CANCELLED = "cancelled"
_SHOWN_MAX = 20
HEARD_SECONDS = 0.25
"""So much later a client may hear what it was told: it has its hands full."""


class Order(NamedTuple):
    """A row of the book."""

    reservation: str
    campaign: str
    user: str
    sku: str
    quantity: int
    state: str
    version: int
    main_order: str | None = None


class Payment(NamedTuple):
    """A row of the book, without those that were only asked for. Money in minor units."""

    payment_id: str
    reservation: str
    stage: str
    amount: int
    status: str


class Refund(NamedTuple):
    refund_id: str
    payment_id: str
    amount: int


@dataclass(frozen=True, slots=True)
class BookRows:
    """What the book says of a round's campaigns."""

    orders: Sequence[Order]
    payments: Sequence[Payment]
    refunds: Sequence[Refund]
    main_orders: Mapping[str, str]
    """By id: the state."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the campaigns promised."""

    stock: Mapping[tuple[str, str], int]
    """By campaign and SKU."""
    per_user: Mapping[str, int]
    """Units, by campaign, where there is a quota."""
    grants: int
    """Units of trade-ins that a main order entitles to."""
    hold_seconds: float


@dataclass(frozen=True, slots=True)
class Excuse:
    """The loss that a setting admits: what was acknowledged in these last seconds before the fault struck,
    and until all of that was gone."""

    struck_at: float
    seconds: float
    gone_at: float

    def covers(self, heard_at: float) -> bool:
        return self.struck_at - self.seconds <= heard_at <= self.gone_at + HEARD_SECONDS


@dataclass(slots=True)
class Verdict:
    """Counts of one round; what is wrong is told in `findings`."""

    acknowledged: int = 0
    settled: int = 0
    lost: int = 0
    """Acknowledged, no order (or a later step of it missing), and no setting that admits it."""
    admitted: int = 0
    """The same, within what the setting admits."""
    oversold: int = 0
    """Units beyond stock."""
    double: int = 0
    """Keys with two reservations, payments charged or refunded twice, users beyond their quota, main orders
    beyond what they entitle to."""
    findings: list[str] = field(default_factory=list)
    """Whatever contradicts an invariant or the contract, those that are counted above too."""

    @property
    def ok(self) -> bool:
        return not self.findings

    def find(self, invariant: str, detail: str) -> None:
        self.findings.append(f"{invariant}: {detail}")


def judge(
    log: ClientLog,
    rows: BookRows,
    main_orders: Mapping[str, str],
    audit: Mapping[str, Any],
    provider: Provider,
    bounds: Bounds,
    excuse: Excuse | None = None,
    named: Collection[str] | None = None,
) -> Verdict:
    """What became of everything that was acknowledged. `main_orders` is what the service says of each that it
    knows; `audit` is its own, as JSON; `named` are reservations that repair has named as lost, if there was
    one."""
    verdict = Verdict()
    acknowledged = log.acknowledged()
    orders = {order.reservation: order for order in rows.orders}
    _judge_reservations(verdict, acknowledged.values(), rows.orders, orders, excuse)
    if named is not None:
        for told in acknowledged.values():
            if told.id not in orders and told.id not in named:
                verdict.find("report", f"{told.id} ({told.key}) is lost, and repair did not name it")
    _judge_steps(verdict, log.cancelled(), orders, excuse)
    _judge_main_orders(verdict, log, rows.main_orders, main_orders, excuse)
    _judge_entitlements(verdict, rows, main_orders, bounds)
    _judge_grants(verdict, log, bounds, excuse)
    _judge_stock(verdict, rows.orders, bounds)
    _judge_money(verdict, rows, orders, provider, excuse)
    _judge_audit(verdict, audit, excuse)
    for malfunction in log.malfunctions()[:_SHOWN_MAX]:
        verdict.find("API", malfunction)
    for sort, count in provider.believed.items():
        verdict.double += count
        verdict.find("I7", f"{count} forged webhooks ({sort}) were not turned away")
    return verdict


def _judge_reservations(
    verdict: Verdict,
    acknowledged: Collection[Told],
    rows: Sequence[Order],
    orders: Mapping[str, Order],
    excuse: Excuse | None,
) -> None:
    """I4: each is exactly one order. I6: the same key was told the same, every time."""
    counted = Counter(order.reservation for order in rows)
    verdict.acknowledged = len(acknowledged)
    for told in acknowledged:
        excused = excuse is not None and excuse.covers(told.first_at)
        if len(told.reservations) > 1:
            verdict.double += 1
            verdict.find("I6", f"{told.key} was told of {sorted(told.reservations)}")
        if len(told.made_at) > 1 and not excused:
            verdict.find("I6", f"{told.key} was told that it was made at {sorted(told.made_at)}")
        order = orders.get(told.id)
        if order is None:
            _lose(verdict, f"{told.id} ({told.key}) was acknowledged and is no order", excused)
            continue
        verdict.settled += 1
        if counted[told.id] > 1:
            verdict.double += 1
            verdict.find("I4", f"{told.id} is {counted[told.id]} orders")
        asked = (told.campaign, told.user, told.sku, told.quantity, told.order)
        if (order.campaign, order.user, order.sku, order.quantity, order.main_order) != asked:
            verdict.find("I4", f"{told.id} is {order}, and {asked} was asked for")


def _judge_steps(
    verdict: Verdict, cancelled: Mapping[str, float], orders: Mapping[str, Order], excuse: Excuse | None
) -> None:
    for reservation, at in cancelled.items():
        order = orders.get(reservation)
        if order is not None and order.state not in ("cancelled", "refunded"):
            excused = excuse is not None and excuse.covers(at)
            _lose(verdict, f"{reservation} was cancelled, and is {order.state}", excused)


def _lose(verdict: Verdict, detail: str, excused: bool) -> None:
    if excused:
        verdict.admitted += 1
    else:
        verdict.lost += 1
        verdict.find("I4", detail)


def _judge_main_orders(
    verdict: Verdict,
    log: ClientLog,
    book: Mapping[str, str],
    store: Mapping[str, str],
    excuse: Excuse | None,
) -> None:
    """I4, of main orders: what was acknowledged of each is known to the store and to the book."""
    for name, known in (("the book", book), ("the store", store)):
        for order, at in log.orders("report order").items():
            if order not in known:
                excused = excuse is not None and excuse.covers(at)
                _lose(verdict, f"main order {order} was reported, and {name} does not know it", excused)
        for order, at in log.orders("cancel order").items():
            if known.get(order) != CANCELLED:
                excused = excuse is not None and excuse.covers(at)
                _lose(verdict, f"main order {order} was cancelled, and is not in {name}", excused)
    for order in sorted(book.keys() & store.keys()):
        if book[order] != store[order]:
            verdict.find(
                "I4", f"main order {order} is {book[order]} in the book, {store[order]} in the store"
            )


def _judge_entitlements(
    verdict: Verdict, rows: BookRows, main_orders: Mapping[str, str], bounds: Bounds
) -> None:
    """I9, going by the book: no main order has more add-ons than it grants, and a cancelled one has none."""
    units = Counter[str]()
    for order in rows.orders:
        if order.main_order is not None and order.state in HOLDS:
            units[order.main_order] += order.quantity
    for main_order, taken in units.items():
        if taken > bounds.grants:
            verdict.double += 1
            verdict.find("I9", f"main order {main_order} grants {bounds.grants}, and {taken} were taken")
        if CANCELLED in (rows.main_orders.get(main_order), main_orders.get(main_order)):
            verdict.double += 1
            verdict.find("I9", f"main order {main_order} is cancelled, and has {taken} units of add-ons")


def _judge_grants(verdict: Verdict, log: ClientLog, bounds: Bounds, excuse: Excuse | None) -> None:
    """I9, going by the clients' log alone: at no moment, and not after it was cancelled, had a main order
    more than it grants."""
    sent: dict[str, float] = {}
    given_back: dict[str, float] = {}
    for one in log.tries:
        sent[one.key] = min(one.sent_at, sent.get(one.key, one.sent_at))
        if one.what in ("cancel", "cancel order"):
            name = str(one.reservation if one.what == "cancel" else one.order)
            given_back[name] = min(one.sent_at, given_back.get(name, one.sent_at))
    cancelled = log.orders("cancel order")
    held: dict[str, list[tuple[float, int]]] = {}
    for told in log.acknowledged().values():
        if told.order is None or (excuse is not None and excuse.covers(told.first_at)):
            continue
        cancelled_at = cancelled.get(told.order)
        if cancelled_at is not None and sent[told.key] > cancelled_at:
            if excuse is None or not excuse.covers(cancelled_at):
                verdict.double += 1
                verdict.find("I9", f"{told.id} was granted after main order {told.order} was cancelled")
            continue
        # Certainly theirs, from when they were told until they gave it back or it may have expired.
        until = [datetime.fromisoformat(min(told.made_at)).timestamp() - log.epoch + bounds.hold_seconds]
        until += [given_back[name] for name in (told.id, told.order) if name in given_back]
        if told.first_at < min(until):
            steps = held.setdefault(told.order, [])
            steps += ((told.first_at, told.quantity), (min(until), -told.quantity))
    for order, steps in held.items():
        most = max(accumulate(n for _, n in sorted(steps)))
        if most > bounds.grants:
            verdict.double += 1
            verdict.find("I9", f"main order {order} grants {bounds.grants}, and had {most} at once")


def _judge_stock(verdict: Verdict, orders: Sequence[Order], bounds: Bounds) -> None:
    """I2 and I3, going by the book."""
    units, by_user = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for order in orders:
        if order.state in HOLDS:
            units[order.campaign, order.sku] += order.quantity
            by_user[order.campaign, order.user] += order.quantity
    for offer, taken in units.items():
        beyond = taken - bounds.stock.get(offer, 0)
        if beyond > 0:
            verdict.oversold += beyond
            verdict.find(
                "I2", f"{offer}: the book has {taken} units, of a stock of {bounds.stock.get(offer, 0)}"
            )
    for (campaign, user), taken in by_user.items():
        quota = bounds.per_user.get(campaign)
        if quota is not None and taken > quota:
            verdict.double += 1
            verdict.find("I3", f"{user} has {taken} units of {campaign}, the quota is {quota}")


def _judge_money(
    verdict: Verdict,
    rows: BookRows,
    orders: Mapping[str, Order],
    provider: Provider,
    excuse: Excuse | None,
) -> None:
    """I7, going by the bank's own book."""
    succeeded = {one.payment_id: one for one in rows.payments if one.status == "succeeded"}
    refunded = Counter[str]()
    for refund in rows.refunds:
        refunded[refund.payment_id] += refund.amount
    kept_of = [one for one in succeeded.values() if refunded[one.payment_id] < one.amount]
    for (reservation, stage), count in Counter((one.reservation, one.stage) for one in kept_of).items():
        if count > 1:
            verdict.double += 1
            verdict.find("I7", f"{reservation} was charged {count} times for {stage}")
    campaigns = {order.campaign for order in rows.orders}
    for charge in provider.charges.values():
        if not charge.taken or charge.payment_id.partition(".")[0] not in campaigns:
            continue
        reservation = charge.payment_id.rpartition(".")[0]
        if charge.payment_id not in succeeded:
            if reservation in orders:
                excused = excuse is not None and excuse.covers(charge.taken_at)
                _lose(verdict, f"{charge.payment_id}: its webhook was taken, the book has it not", excused)
            continue
        order = orders.get(reservation)
        if order is None:
            continue
        kept = charge.amount - refunded[charge.payment_id]
        if kept < 0:
            verdict.double += 1
            verdict.find("I7", f"{charge.payment_id}: {-kept} more was refunded than was charged")
        elif kept > 0 and order.state not in HOLDS:
            verdict.find("I7", f"{charge.payment_id}: {reservation} is {order.state}, and {kept} was kept")
    for payment_id, amount in provider.refunded.items():
        found = provider.charges.get(payment_id)
        if found is not None and amount > found.amount:
            verdict.double += 1
            verdict.find("I7", f"{payment_id}: the bank gave back {amount} of {found.amount}")


def _judge_audit(verdict: Verdict, audit: Mapping[str, Any], excuse: Excuse | None) -> None:
    for campaign in audit["campaigns"]:
        for offer in campaign["offers"]:
            beyond = offer["held"] + offer["sold"] - offer["stock"]
            verdict.oversold += max(0, beyond)
        for violation in campaign["violations"]:
            invariant = violation["invariant"]
            if invariant in ("I3", "I7", "I9"):
                verdict.double += 1
            verdict.find(f"audit {invariant}", violation["detail"])


def read_book(dsn: str, campaigns: Sequence[str], main_orders: Sequence[str]) -> BookRows:
    """What it has of these. Raises psycopg.Error."""
    ids = list(campaigns)
    with psycopg.connect(dsn) as connection:
        orders = connection.execute(
            "SELECT reservation_id, campaign, user_id, sku, quantity, state, version,"
            " main_order_id FROM orders"
            " WHERE campaign = ANY(%s)",
            [ids],
        ).fetchall()
        payments = connection.execute(
            "SELECT payment_id, reservation_id, stage, amount, status FROM payments"
            " WHERE split_part(reservation_id, '.', 1) = ANY(%s)",
            [ids],
        ).fetchall()
        refunds = connection.execute(
            "SELECT refund_id, payment_id, amount FROM refunds"
            " WHERE split_part(reservation_id, '.', 1) = ANY(%s)",
            [ids],
        ).fetchall()
        reported = connection.execute(
            "SELECT order_id, state FROM main_orders WHERE order_id = ANY(%s)", [list(main_orders)]
        ).fetchall()
    return BookRows(
        [Order(*row) for row in orders],
        [Payment(*row) for row in payments],
        [Refund(*row) for row in refunds],
        dict(reported),
    )
