"""Bugs that others have made, planted one at a time: each is to be found by the checker within some seeds.

Each is a small patch of the real code, or, where the real thing is a script or a server, of what stands for
it here.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

from reservation import desk, paying
from reservation.envelope import Envelope
from reservation.ids import ReservationId, digest_of
from reservation.kernel import Move, Moved, Place, Terms
from reservation.main_order import MainOrder
from reservation.model import ModelEvent, ModelStore, _Campaign
from reservation.order_desk import OrderDesk
from reservation.outbox import Entry
from reservation.outcomes import Outcome
from reservation.record import LIVE, SOLD, Facts, Payment, Reservation, State
from reservation.steps import Event, Steps, Unchanged, step
from settlement.book import RefundDue
from settlement.rabbit import EVENTS
from settlement.reconcile import Reconciler, Reconciliation
from settlement.refunds import Refunder
from settlement.relay import Relay
from settlement.worker import Worker
from tests.simulation.book import BookServer, MemoryBook, Row
from tests.simulation.broker import BrokerServer, MemoryBrokerDeadLetters
from tests.simulation.outbox import MemoryDeadLetters, MemoryOutbox
from tests.simulation.plan import Loss
from tests.simulation.store import Memory, StoreClient, StoreServer
from tests.simulation.wire import now

Plant = Callable[[], Iterator[None]]


@dataclass(frozen=True)
class Bug:
    """A patch, and what the store has to lose for it to show."""

    planted: Callable[[], AbstractContextManager[None]]
    what: str
    loss: Loss | None
    kind: str | None
    """Of the campaign that it shows in; any where None."""


BUGS: dict[str, Bug] = {}


def bug(plant: Plant, loss: Loss | None = None, kind: str | None = None) -> Plant:
    BUGS[plant.__name__] = Bug(contextmanager(plant), (plant.__doc__ or "").strip(), loss, kind)
    return plant


def bug_in(kind: str | None = None, *, loss: Loss | None = None) -> Callable[[Plant], Plant]:
    """One that shows only in such a campaign, or only when the store has lost something."""
    return partial(bug, loss=loss, kind=kind)


@bug
def decrement_then_publish() -> Iterator[None]:
    """The event is written by whoever reserved, once it has the answer: who dies in between writes none."""
    script, reserve = Memory.script, StoreClient.reserve

    def without_event(self: Memory, name: str, *given: Any, **named: Any) -> Any:
        if name != "reserve":
            return script(self, name, *given, **named)
        moved: Moved = now(self.model.reserve(*given))
        for event in self.model.outbox:
            _unpublished[event.id] = self._envelope(event, given)
        self.model.outbox.clear()
        return moved

    async def then_publish(self: StoreClient, terms: Terms, digest: str, user: str) -> Moved:
        moved = await reserve(self, terms, digest, user)
        if moved.outcome is Outcome.MOVED:
            assert moved.reservation is not None
            await self._write("add", _unpublished[str(moved.reservation.id)])
        return moved

    _unpublished: dict[str, Envelope] = {}
    with patch.object(Memory, "script", without_event), patch.object(StoreClient, "reserve", then_publish):
        yield


@bug
def event_without_decrement() -> Iterator[None]:
    """The event of a reservation is written before it is known whether there is anything left for it."""
    reserve = ModelStore._reserve

    def published(self: ModelStore, terms: Terms, digest: str, user: str) -> Moved:
        moved = reserve(self, terms, digest, user)
        if moved.outcome is Outcome.SOLD_OUT:
            made = _would_be(terms, digest, user, moved.now_ms)
            self.outbox.append(ModelEvent(terms.event, str(made.id), made, terms.data))
        return moved

    with patch.object(ModelStore, "_reserve", published):
        yield


def _would_be(terms: Terms, digest: str, user: str, now_ms: int) -> Reservation:
    return Reservation(
        ReservationId(terms.campaign, digest), State.HELD, 1, user, terms.sku, terms.quantity, (),
        now_ms, now_ms, now_ms + terms.hold_ms, Facts.unpack(terms.facts),
    )  # fmt: skip


@bug
def release_twice() -> Iterator[None]:
    """Giving up gives back what was decided on, whatever has become of it since."""
    move = ModelStore.move

    async def released(self: ModelStore, asked: Move) -> Moved:
        moved = await move(self, asked)
        if moved.outcome is Outcome.CONFLICT and asked.event in (Event.CANCELLED, Event.EXPIRED):
            counter = f"stock/{asked.sku}"
            self._campaigns[asked.id.campaign].used[counter] -= asked.quantity
        return moved

    with patch.object(ModelStore, "move", released):
        yield


@bug
def quota_after_stock() -> Iterator[None]:
    """Stock is taken first, then the quota refuses, and nobody gives the stock back."""
    reserve = ModelStore._reserve

    def taken(self: ModelStore, terms: Terms, digest: str, user: str) -> Moved:
        moved = reserve(self, terms, digest, user)
        campaign = self._campaigns.get(terms.campaign)
        if moved.outcome is Outcome.QUOTA_EXCEEDED and campaign is not None:
            campaign.used[terms.queued] += terms.quantity
        return moved

    with patch.object(ModelStore, "_reserve", taken):
        yield


@bug
def release_without_quota() -> Iterator[None]:
    """What is given up gives its stock back, and forgets the user's quota."""
    take = ModelStore._take

    def forgetful(
        self: ModelStore, campaign: _Campaign, steps: dict[str, int], user: str, now_ms: int
    ) -> None:
        kept = {name: step for name, step in steps.items() if step > 0 or not name.endswith("@")}
        take(self, campaign, kept, user, now_ms)

    with patch.object(ModelStore, "_take", forgetful):
        yield


@bug
def acknowledge_before_commit() -> Iterator[None]:
    """A worker acknowledges what it has taken, then settles it."""

    async def run(self: Worker) -> None:
        async for batch in self._source.batches():
            await batch.done()
            await self.settle(batch.envelopes)

    with patch.object(Worker, "run", run):
        yield


@bug
def forget_before_confirm() -> Iterator[None]:
    """The relay forgets in the outbox what the broker has not confirmed."""

    async def relay(self: Relay, entries: Sequence[Entry]) -> None:
        await self._outbox.done(entries)
        await self._broker.publish(EVENTS, [entry.envelope for entry in entries])

    async def run(self: Relay) -> None:
        while True:
            try:
                entries = await self._outbox.next()
                if entries:
                    await self.relay(entries)
            except Exception:  # noqa: S112  (that is the bug)
                continue

    with patch.object(Relay, "relay", relay), patch.object(Relay, "run", run):
        yield


@bug
def read_without_pending() -> Iterator[None]:
    """What is read from the outbox is forgotten at once."""
    read = Memory.read

    def no_acknowledgement(self: Memory, consumer: str, limit: int) -> list[Entry] | None:
        found = read(self, consumer, limit)
        self.forget([int(entry.entry_id) for entry in found or ()])
        return found

    with patch.object(Memory, "read", no_acknowledgement):
        yield


@bug
def confirmed_before_replicated() -> Iterator[None]:
    """The broker confirms what one node has, which then goes."""
    go_down = BrokerServer.go_down

    def lost(self: BrokerServer) -> None:
        go_down(self)
        self.queues[EVENTS].clear()

    with patch.object(BrokerServer, "go_down", lost):
        yield


@bug
def no_take_over() -> Iterator[None]:
    """What a reader that died had in hand is never taken over."""

    async def nothing(self: MemoryOutbox) -> list[Entry]:
        return []

    with patch.object(MemoryOutbox, "take_over", nothing):
        yield


@bug
def dead_letters_swallowed() -> Iterator[None]:
    """What the book refuses is logged, and that is all."""

    async def put(self: object, envelope: Envelope, reason: str) -> None:
        return

    with patch.object(MemoryDeadLetters, "put", put), patch.object(MemoryBrokerDeadLetters, "put", put):
        yield


@bug
def older_over_newer() -> Iterator[None]:
    """The book takes whatever comes last."""

    def last(self: BookServer, name: str, found: Row) -> None:
        self.orders[name] = found

    with patch.object(BookServer, "take_order", last):
        yield


@bug
def half_a_transaction() -> Iterator[None]:
    """Orders are committed, and their events in another transaction, which a deadlock may take."""
    settle = BookServer.settle

    def parted(self: BookServer, envelopes: Sequence[Envelope], rows: Any) -> None:
        events = dict(self.events)
        settle(self, envelopes, rows)
        if self._dice.random() < 0.1:
            self.events = events

    with patch.object(BookServer, "settle", parted):
        yield


@bug
def blind_restore() -> Iterator[None]:
    """Repair sets the store's stock from the book's orders, and erases what is on its way there."""
    reconcile = Reconciler.reconcile

    async def blind(
        self: Reconciler, campaigns: Sequence[str], *, repair: bool, lift: bool = False
    ) -> Reconciliation:
        for campaign in campaigns:
            units: dict[str, int] = {}
            async for page in self._book.reservations(campaign):
                for one in page:
                    if one.record is not None:
                        taken = one.record.quantity if one.state in LIVE | SOLD else 0
                        units[one.record.sku] = units.get(one.record.sku, 0) + taken
            await self._store._write("set_used", campaign, units)  # type: ignore[attr-defined]
        return await reconcile(self, campaigns, repair=repair, lift=lift)

    def set_used(self: Memory, campaign: str, units: dict[str, int]) -> None:
        found = self.model._campaigns.get(campaign)
        if found is not None:
            found.used.update({f"stock/{sku}": n for sku, n in units.items()})

    with (
        patch.object(Reconciler, "reconcile", blind),
        patch.object(Memory, "set_used", set_used, create=True),
    ):
        yield


@bug_in(loss=Loss.EVERYTHING)
def restore_beyond_cap() -> Iterator[None]:
    """What the book has is brought back, whether there is room for it or not."""
    restore = ModelStore.restore

    async def unchecked(self: ModelStore, *given: Any) -> Any:
        with patch.object(ModelStore, "_weigh", lambda *_: ("", set())):
            return await restore(self, *given)

    with patch.object(ModelStore, "restore", unchecked):
        yield


@bug_in(loss=Loss.LAST_SECOND)
def no_fence() -> Iterator[None]:
    """A store that has lost its last second is open to all before what it lost is back."""
    with patch.object(StoreServer, "fenced_when_lost", False):
        yield


@bug
def retry_makes_another() -> Iterator[None]:
    """A reservation's id has chance in it, so that a retry is another reservation."""

    def random_digest(campaign: str, user: str, key: str) -> str:
        return digest_of(campaign, user, f"{key}{uuid.uuid4()}")

    with patch.object(desk, "digest_of", random_digest):
        yield


@bug
def refund_under_new_ids() -> Iterator[None]:
    """Each time that a refund is asked for, it is asked for under another id."""
    ask = Refunder._ask

    async def ask_anew(self: Refunder, refund: RefundDue) -> None:
        attempt = 2 + uuid.uuid4().int % 90
        await ask(self, refund._replace(refund_id=f"{refund.refund_id}-{attempt}"))

    with patch.object(Refunder, "_ask", ask_anew):
        yield


@bug
def charge_kept_on_the_dead() -> Iterator[None]:
    """A payment that comes after the end is noted, and nobody gives it back."""

    def with_refund(self: Facts, payment: Payment, amount: int, reason: str, at_ms: int) -> Facts:
        return self if reason == "paid_after_end" else given_back(self, payment, amount, reason, at_ms)

    given_back = Facts.with_refund
    with patch.object(Facts, "with_refund", with_refund):
        yield


@bug
def late_payment_without_goods() -> Iterator[None]:
    """A late payment confirms its reservation, and takes no stock again."""

    paid = paying._paid

    def confirmed(reservation: Reservation, *given: Any) -> Move:
        move = paid(reservation, *given)
        return dataclasses.replace(move, claims=()) if reservation.state in paying.ENDED else move

    with patch.object(paying, "_paid", confirmed):
        yield


@bug
def repeat_is_another_payment() -> Iterator[None]:
    """A payment that is told twice is believed to be two, and the second is given back."""
    take_notice = paying.take_notice

    def undone(reservation: Reservation, *given: Any) -> Any:
        decision, notice = take_notice(reservation, *given), given[1]
        paid = reservation.facts.payments.get(notice.payment)
        succeeded = notice.type is paying.NoticeType.PAYMENT_SUCCEEDED and paid is not None
        if paid is None or not succeeded or not isinstance(decision, Unchanged):
            return decision
        facts = reservation.facts.with_refund(paid, paid.amount, "superseded", 0)
        return Steps((step(reservation, Event.PAYMENT_RETURNED, facts=facts),))

    with patch.object(paying, "take_notice", undone):
        yield


@bug
def line_is_skipped() -> Iterator[None]:
    """The last in line is served first, and the store lets it happen."""
    queue = StoreClient.queue

    async def backwards(self: StoreClient, campaign: str, sku: str, limit: int) -> list[Place]:
        return (await queue(self, campaign, sku, limit))[::-1]

    with (
        patch.object(StoreClient, "queue", backwards),
        patch.object(_Campaign, "has_turn", lambda self, terms, user: True),
    ):
        yield


@bug
def line_is_no_secret() -> Iterator[None]:
    """Whoever asks just then gets what has come back for those in line."""
    with patch.object(_Campaign, "suffices_for_some", lambda self, asked: False):
        yield


@bug
def sweeper_without_version() -> Iterator[None]:
    """The sweeper ends what it has seen unpaid, whatever has happened since."""
    move = ModelStore.move

    async def ended(self: ModelStore, asked: Move) -> Moved:
        moved = await move(self, asked)
        if moved.outcome is Outcome.CONFLICT and asked.event == Event.EXPIRED:
            assert moved.reservation is not None
            return await move(self, dataclasses.replace(asked, version=moved.reservation.version))
        return moved

    with patch.object(ModelStore, "move", ended):
        yield


@bug
def holds_never_end() -> Iterator[None]:
    """Nobody looks for holds that have run out."""

    async def nothing(self: StoreClient, limit: int) -> list[ReservationId]:
        return []

    with patch.object(StoreClient, "due", nothing):
        yield


@bug_in(loss=Loss.EVERYTHING)
def campaign_made_anew() -> Iterator[None]:
    """A campaign that the store has lost is made anew, with all of its stock, and there is no fence."""

    async def no_memory(self: MemoryBook, campaign: str) -> bool:
        return False

    with (
        patch.object(MemoryBook, "remembers", no_memory),
        patch.object(StoreServer, "fenced_when_lost", False),
    ):
        yield


@bug_in("trade_in")
def trade_in_outlives_its_order() -> Iterator[None]:
    """A main order that is cancelled gives no more, and what it has given stays."""

    async def nothing(self: OrderDesk, reservation_id: ReservationId, order: MainOrder) -> None:
        return

    with patch.object(OrderDesk, "_take_back", nothing):
        yield


@bug_in(loss=Loss.EVERYTHING)
def hole_in_the_history() -> Iterator[None]:
    """Repair is content with an order's last version, though an event that led there is lost."""

    def last(self: BookServer, ids: Sequence[ReservationId]) -> dict[ReservationId, int]:
        return {one: self.orders[str(one)]["version"] for one in ids if str(one) in self.orders}

    with patch.object(BookServer, "versions", last):
        yield
