"""Settlement tells of every hop: what it moved, how long that took, and what failed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from reservation.administration import Administration
from reservation.catalog import Catalog, parse_campaign
from reservation.clock import StoreClock
from reservation.envelope import Envelope
from reservation.ids import ReservationId
from reservation.outbox import Outbox
from reservation.record import Facts
from reservation.redis_store import RedisStore
from settlement import settled
from settlement.book import Book, BookUnavailable, NotificationDue, RefundDue
from settlement.dead_letters import StoreDeadLetters
from settlement.lookout import Lookout
from settlement.notifier import SCHEDULE, Gone, Notifier, NotTaken
from settlement.rabbit import DEAD, Broker, BrokerUnavailable, RabbitDeadLetters, RabbitSource
from settlement.refunds import Refunder, RefundNotTaken
from settlement.relay import Relay
from settlement.source import OutboxSource
from settlement.worker import Worker
from tests.counts import counted, rising
from tests.settlement.conftest import Shop
from tests.settlement.running import relaying, working
from tests.settlement.test_notifications import event
from tests.stack import eventually, presale, sale

NOWHERE = "amqp://127.0.0.1:1/"
NO_BOOK = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
WAITING = ("refunds_pending", "notifications_pending", "notification_oldest_seconds", "dead_letters")


def settled_events(campaign: str, kind: str, of: str) -> float | None:
    labels = {"campaign": campaign, "kind": kind, "type": of}
    return REGISTRY.get_sample_value("doorbuster_settled_events_total", labels)


def waiting() -> list[float]:
    return [counted(f"doorbuster_{name}") for name in WAITING]


async def test_events_are_told_by_campaign_kind_and_type_and_payments_by_stage(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    reserved = [await shop.reserve(user) for user in ("ann", "bob", "cat")]
    await shop.pay(reserved[0])
    source = OutboxSource(Outbox(redis_client, "worker"), StoreDeadLetters(redis_client))

    async def paid() -> float | None:
        return settled_events(shop.campaign, "flash_sale", "payment_succeeded")

    with (
        rising("doorbuster_settle_duration_seconds_count") as transactions,
        rising("doorbuster_settlement_lag_seconds_count") as lags,
        rising("doorbuster_settle_batch_events_sum") as events,
    ):
        async with working(source, book):
            await eventually(paid, lambda count: count == 1)
    assert settled_events(shop.campaign, "flash_sale", "campaign_changed") == 1
    assert settled_events(shop.campaign, "flash_sale", "reserved") == 3
    assert settled_events(shop.campaign, "flash_sale", "expired") == 0, "from nothing, before there is one"
    labels = {"campaign": shop.campaign, "kind": "flash_sale", "stage": "full"}
    assert counted("doorbuster_settled_payments_total", **labels) == 1
    assert (lags.by, events.by) == (3, 6)
    assert transactions.by >= 1


async def test_main_orders_are_told_without_a_campaign(book: Book, redis_client: Redis) -> None:
    body = {"state": "open", "user": "ann", "lines": [], "paid_at": 0, "used": []}
    order: Envelope = {"type": "main_order_changed", "id": "shop-1", "version": 1, "body": body, "at": 1}
    with rising(
        "doorbuster_settled_events_total", campaign="", kind="main_order", type="main_order_changed"
    ) as orders:
        settled.count([order])
    assert orders.by == 1


async def test_a_book_that_is_away_is_told(book: Book, redis_client: Redis) -> None:
    class Away:
        times = 2

        async def settle(self, envelopes: Sequence[Envelope]) -> None:
            if self.times:
                self.times -= 1
                raise BookUnavailable("for a test")

    source = OutboxSource(Outbox(redis_client, "worker"), StoreDeadLetters(redis_client))
    with (
        rising("doorbuster_settle_failures_total", reason="book_unavailable") as failures,
        rising("doorbuster_settle_duration_seconds_count") as transactions,
    ):
        await Worker(source, Away()).settle([event("ann", 1, "offered")])
    assert (failures.by, transactions.by) == (2, 1)
    other = Book(NO_BOOK)
    await other.open()
    try:
        with (
            rising("doorbuster_book_query_duration_seconds_count", outcome="unavailable") as unavailable,
            pytest.raises(BookUnavailable),
        ):
            await other.ping()
    finally:
        await other.close()
    with rising("doorbuster_book_query_duration_seconds_count", outcome="ok") as answered:
        await book.ping()
    assert (unavailable.by, answered.by) == (1, 1)


async def test_connections_to_the_book_are_used_idle_or_waited_for(postgres_dsn: str) -> None:
    book = Book(postgres_dsn, connections_max=1)
    await book.open()
    try:
        await book.ping()
        assert book.connections() == (0, 1, 0)
        async with book._connection():
            waiting = asyncio.create_task(book.ping())

            async def connections() -> tuple[int, int, int]:
                return book.connections()

            await eventually(connections, lambda found: found == (1, 0, 1))
        await waiting
    finally:
        await book.close()


async def test_what_the_relay_publishes_is_told_and_that_it_cannot(
    shop: Shop, redis_client: Redis, broker: Broker, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("ann", "bob"):
        await shop.reserve(user)
    publishes, refuses = Broker(amqp_url), 1
    publish = publishes.publish

    async def stumbling(queue: str, envelopes: Sequence[Envelope]) -> None:
        nonlocal refuses
        refuses -= 1
        if refuses == 0:
            raise BrokerUnavailable("for a test")
        await publish(queue, envelopes)

    monkeypatch.setattr(publishes, "publish", stumbling)

    async def relayed() -> float:
        return counted("doorbuster_relayed_events_total") - before

    before = counted("doorbuster_relayed_events_total")
    with (
        rising("doorbuster_relay_failures_total") as failures,
        rising("doorbuster_relay_batch_events_sum") as events,
        rising("doorbuster_publish_duration_seconds_count") as publishing,
        rising("doorbuster_broker_connections_total", outcome="opened") as opened,
    ):
        async with relaying(Relay(Outbox(redis_client, "relay"), publishes)):
            await eventually(relayed, lambda count: count == 3)
    assert (failures.by, events.by, opened.by) == (1, 3, 1)
    assert publishing.by >= 1
    with (
        rising("doorbuster_broker_connections_total", outcome="failed") as failed,
        pytest.raises(BrokerUnavailable),
    ):
        await Broker(NOWHERE).open()
    assert failed.by == 1


@pytest.mark.parametrize("outcome", ["taken", "not_taken"])
async def test_what_the_provider_answers_and_how_long_it_takes_is_told(outcome: str) -> None:
    due = [RefundDue("r", "p", 100, "CNY", "for a test", None)]

    class Due:
        async def refunds_to_ask_for(self, limit: int) -> list[RefundDue]:
            return [due.pop()] if due else []

    class Provider:
        async def refund(self, refund: RefundDue) -> None:
            await asyncio.sleep(0.02)
            if outcome == "not_taken":
                raise RefundNotTaken("for a test")

    async def asked() -> float:
        return counted("doorbuster_refund_duration_seconds_count", outcome=outcome) - before

    before = counted("doorbuster_refund_duration_seconds_count", outcome=outcome)
    with (
        rising("doorbuster_refund_requests_total", outcome=outcome) as requests,
        rising("doorbuster_refund_duration_seconds_sum", outcome=outcome) as took,
    ):
        running = asyncio.create_task(Refunder(Due(), Provider()).run())
        await eventually(asked, lambda count: count == 1)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert requests.by == 1
    assert took.by >= 0.02


@pytest.mark.parametrize(
    ("outcome", "error"), [("sent", None), ("not_taken", NotTaken("no")), ("failed", Gone("never"))]
)
async def test_what_the_merchant_answers_and_how_long_it_takes_is_told(
    book: Book, outcome: str, error: Exception | None
) -> None:
    class Merchant:
        async def take(self, notification: NotificationDue) -> None:
            await asyncio.sleep(0.02)
            if error is not None:
                raise error

        async def close(self) -> None: ...

    await book.settle([event("ann", 1, "offered")])
    (due,) = await book.notifications_to_send(10, SCHEDULE.seconds_min, SCHEDULE.seconds_max)
    with (
        rising("doorbuster_notifications_total", type="offered", outcome=outcome) as attempts,
        rising("doorbuster_notification_duration_seconds_sum", outcome=outcome) as took,
    ):
        await Notifier(book, Merchant()).send(due)
    assert attempts.by == 1
    assert took.by >= 0.02


async def test_what_waits_in_the_book_and_among_the_dead_is_told(
    book: Book, postgres_dsn: str, redis_client: Redis
) -> None:
    letters = StoreDeadLetters(redis_client)
    lookout = Lookout(book.waiting, book.campaigns_on, letters)
    await lookout.look()
    assert waiting() == [0, 0, 0, 0]
    await book.settle([event("ann", 1, "offered"), event("bob", 1, "offered"), refunded("cat")])
    for user in ("dan", "eve", "fay"):
        await letters.put(event(user, 1, "offered"), "for a test")
    await asyncio.sleep(0.01)  # for the oldest to have an age
    await lookout.look()
    refunds, notifications, oldest, dead = waiting()
    assert (refunds, notifications, dead) == (1, 2, 3)
    assert 0 < oldest < 60
    (due, _) = await book.notifications_to_send(10, SCHEDULE.seconds_min, SCHEDULE.seconds_max)
    await book.note_notification_sent(due.notification_id)
    await letters.replay(10)
    await lookout.look()
    assert [waiting()[1], waiting()[3]] == [1, 0]


async def test_the_brokers_dead_letters_are_told_whoever_set_them_aside(
    broker: Broker, amqp_url: str
) -> None:
    source = RabbitSource(broker)
    await source.open()
    lookout = Lookout(no_book, no_book, source.dead_letters)
    for user in ("ann", "bob"):
        await broker.publish(DEAD, [event(user, 1, "offered")])

    async def look() -> float:
        await lookout.look()
        return counted("doorbuster_dead_letters")

    await eventually(look, lambda count: count == 2)
    assert not broker.channel.is_closed, "counting leaves the channel of the events alone"
    # Gone with its queue, as after somebody has deleted it: not known, and consuming goes on.
    await broker.dead.delete(if_unused=False, if_empty=False)
    assert math.isnan(await look())
    assert not broker.channel.is_closed
    await broker._declare()
    await eventually(look, lambda count: count == 0)


async def test_what_cannot_be_looked_up_is_not_told_to_be_nothing() -> None:
    lookout = Lookout(no_book, no_book, RabbitDeadLetters(Broker(NOWHERE)))
    await lookout.look()
    assert all(map(math.isnan, waiting()))


async def test_what_another_worker_took_into_the_book_is_counted_from_nothing(
    book: Book, redis_client: Redis
) -> None:
    over = {"opens_at": "2020-01-01T00:00:00Z", "closes_at": "2020-01-02T00:00:00Z"}
    documents = [parse_campaign(sale()), parse_campaign(presale()), parse_campaign(sale(**over))]
    store = RedisStore(redis_client)
    administration = Administration(store, Catalog(store, StoreClock()), book)
    lookout = Lookout(book.waiting, book.campaigns_on, StoreDeadLetters(redis_client))
    source = OutboxSource(Outbox(redis_client, "worker"), StoreDeadLetters(redis_client))
    ids = [document.id for document in documents]

    async def in_the_book() -> int:
        return sum([await book.campaign(name) is not None for name in ids])

    def told(campaign: str, kind: str) -> list[float | None]:
        return [settled_events(campaign, kind, of) for of in ("reserved", "payment_succeeded")]

    await lookout.look()
    for document in documents:
        await administration.put(document)
    async with working(source, book):
        await eventually(in_the_book, lambda count: count == len(documents))
    # As in a process that was elsewhere meanwhile.
    settled._counted.clear()
    for campaign in ids:
        settled.SETTLED_EVENTS.remove_by_labels({"campaign": campaign})
        settled.SETTLED_PAYMENTS.remove_by_labels({"campaign": campaign})
    await lookout.look()
    assert told(ids[0], "flash_sale") == [0, 0]
    assert told(ids[1], "presale") == [0, 0]
    assert told(ids[2], "flash_sale") == [None, None], "it is over"
    assert counted("doorbuster_settled_payments_total", campaign=ids[1], kind="presale", stage="balance") == 0


def test_only_so_many_campaigns_are_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "CAMPAIGNS_MAX", 3)
    settled._counted.clear()

    def settle(campaign: str) -> None:
        made = event("ann", 1, "offered")
        settled.count([made | {"id": str(ReservationId.derive(campaign, "ann", "ann"))}])

    def told(campaign: str) -> float | None:
        return settled_events(campaign, "presale", "offered")

    for campaign in ("one", "two", "three", "one", "four"):
        settle(campaign)
    assert [told(name) for name in ("one", "two", "three", "four")] == [2, None, 1, 1]
    settle("two")
    assert [told(name) for name in ("one", "two", "three", "four")] == [2, 1, None, 1]


def refunded(user: str) -> Envelope:
    """A payment that came too late, and is to go back."""
    made = event(user, 2, "payment_returned", "refunded")
    facts = Facts.unpack(made["record"]["facts"])
    payment = facts.payments["deposit"]
    made["record"]["facts"] = facts.with_refund(payment, payment.amount, "paid_after_end", 1).pack().decode()
    return made


async def no_book(*_: object) -> Any:
    raise BookUnavailable("for a test")
