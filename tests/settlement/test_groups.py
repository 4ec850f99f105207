"""Reservations that were made together stay together up to their rows, and are each as if made alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import orjson
import psycopg
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from redis.asyncio import Redis

from reservation.desk import Request
from reservation.envelope import Envelope, events_in, halves, singly
from reservation.ids import DIGEST_CHARS
from reservation.keys import ALL_SHARDS
from reservation.outbox import Outbox
from settlement.audit import Auditor
from settlement.book import Book
from settlement.dead_letters import StoreDeadLetters
from settlement.metrics import observe
from settlement.rabbit import EVENTS, MESSAGE_BYTES_MAX, Broker, RabbitSource, decode, encode
from settlement.source import OutboxSource
from settlement.worker import Worker
from tests.settlement.conftest import Shop
from tests.settlement.running import working
from tests.settlement.test_book import rows
from tests.settlement.test_dead_letters import orders
from tests.stack import eventually

CROWD = ("ann", "bob", "cat", "dan", "käthe", "小红")

TOO_LONG = random.Random(7).randbytes(8_000).hex()


async def made_together(shop: Shop, tier: str | None = None) -> None:
    asking = (shop.desk.reserve(shop.campaign, user, tier, user, Request("phone", 1)) for user in CROWD)
    await asyncio.gather(*asking)


async def read(client: Redis) -> list[Envelope]:
    """What is in the outbox, in order."""
    outbox = Outbox(client, "test")
    await outbox.open()
    entries = await outbox.read()
    return [entry.envelope for entry in sorted(entries, key=lambda entry: entry.entry_id)]


async def crowd(shop: Shop, client: Redis) -> tuple[Envelope, Envelope]:
    """The campaign's envelope, and the crowd's."""
    await made_together(shop)
    campaign, group = await read(client)
    assert group["who"][1::2] == [*CROWD]
    return campaign, group


def with_user(group: Envelope, old: str, new: object) -> Envelope:
    return group | {"who": [new if part == old else part for part in group["who"]]}


def crowd_of(group: Envelope, number: int, first: int = 0) -> Envelope:
    """The same group with so many in it."""
    who = [part for n in range(first, first + number) for part in (f"{n:0{DIGEST_CHARS}}", f"user-{n:08}")]
    return group | {"who": who}


def clear(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE orders, order_events, payments, refunds, campaigns, campaign_revisions")


def tiers(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT tier FROM orders ORDER BY user_id").fetchall()]


async def test_a_group_settles_into_the_rows_of_its_single_events(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    campaign, group = await crowd(shop, redis_client)
    await book.settle([campaign, *singly(group)])
    expected = rows(postgres_dsn)
    assert len(expected["orders"]) == len(expected["order_events"]) == len(CROWD)
    clear(postgres_dsn)
    await book.settle([campaign, group])
    assert rows(postgres_dsn) == expected
    audit = await Auditor(shop.store, book, settle_seconds_max=0).audit([shop.campaign])
    assert audit.ok, audit.to_json()


async def test_order_lateness_and_repetition_of_groups_and_later_moves_do_not_matter(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    await made_together(shop, "gold")
    held = [await shop.reserve(user) for user in CROWD]  # the same again
    await shop.pay(held[0])
    await shop.desk.cancel(held[1].id, "bob")
    await shop.pay(held[2])
    events = await read(redis_client)
    await book.settle(events)
    expected = rows(postgres_dsn)
    assert [row[1] for row in expected["orders"]].count("confirmed") == 2
    assert len(expected["order_events"]) == len(CROWD) + 5
    dice = random.Random(7)
    for _ in range(25):
        clear(postgres_dsn)
        shuffled = [part for event in events for part in torn(event, dice)]
        shuffled += dice.choices(shuffled, k=5)
        dice.shuffle(shuffled)
        while shuffled:
            size = dice.randint(1, 6)
            await book.settle(shuffled[:size])
            del shuffled[:size]
        assert rows(postgres_dsn) == expected
        assert tiers(postgres_dsn) == ["gold"] * len(CROWD)


def torn(envelope: Envelope, dice: random.Random) -> Sequence[Envelope]:
    """A group as it is, in parts, or single."""
    if "who" not in envelope or dice.random() < 0.3:
        return [envelope]
    if dice.random() < 0.3:
        return singly(envelope)
    parts = halves([envelope])
    assert parts is not None
    return [*parts[0], *parts[1]]


@pytest.mark.parametrize("through", ["outbox", "rabbit"])
@pytest.mark.parametrize("bad", ["b\x00b", TOO_LONG, 7], ids=["no text", "too long to index", "not a name"])
async def test_one_bad_reservation_goes_alone_to_the_dead_letters(
    shop: Shop,
    redis_client: Redis,
    broker: Broker,
    amqp_url: str,
    book: Book,
    postgres_dsn: str,
    through: str,
    bad: object,
) -> None:
    campaign, group = await crowd(shop, redis_client)
    sent = [campaign, with_user(group, "dan", bad)]
    source: OutboxSource | RabbitSource
    if through == "rabbit":
        await broker.publish(EVENTS, sent)
        source = RabbitSource(Broker(amqp_url))
    else:
        for envelope in sent:
            await redis_client.xadd(ALL_SHARDS[0].outbox, {"envelope": orjson.dumps(envelope)})
        source = OutboxSource(Outbox(redis_client, "worker"), StoreDeadLetters(redis_client))
    async with working(source, book):
        await eventually(lambda: orders(postgres_dsn), lambda users: users == sorted({*CROWD} - {"dan"}))
        (letter,) = await eventually(lambda: source.dead_letters.look(10), lambda found: len(found) == 1)
        (dan,) = [one for one in singly(with_user(group, "dan", bad)) if one["record"]["user"] == bad]
        assert letter.envelope == orjson.loads(orjson.dumps(dan)), "a whole event, to be read alone"


async def test_a_group_without_its_terms_is_set_aside_as_it_is(
    shop: Shop, redis_client: Redis, broker: Broker, amqp_url: str, book: Book, postgres_dsn: str
) -> None:
    _, group = await crowd(shop, redis_client)
    bad = {name: value for name, value in group.items() if name != "terms"} | {"who": group["who"][:2]}
    await broker.publish(EVENTS, [bad, group])
    source = RabbitSource(Broker(amqp_url))
    async with working(source, book):
        await eventually(lambda: orders(postgres_dsn), lambda users: users == sorted(CROWD))
        (letter,) = await eventually(lambda: source.dead_letters.look(10), lambda found: len(found) == 1)
        assert letter.envelope == bad


async def test_a_worker_that_dies_between_commit_and_acknowledgement_leaves_one_order_each(
    shop: Shop, redis_client: Redis, broker: Broker, amqp_url: str, book: Book, postgres_dsn: str
) -> None:
    campaign, group = await crowd(shop, redis_client)
    await broker.publish(EVENTS, [campaign, group])
    dying = Worker(source := RabbitSource(Broker(amqp_url)), book)
    await dying.open()
    batch = await anext(source.batches())
    await dying.settle(batch.envelopes)
    expected = rows(postgres_dsn)
    await dying.close()  # and nothing is acknowledged
    again = Worker(source := RabbitSource(Broker(amqp_url)), book)
    await again.open()
    batch = await anext(source.batches())
    assert batch.envelopes == [campaign, group]
    await again.settle(batch.envelopes)
    await batch.done()
    await again.close()
    assert rows(postgres_dsn) == expected
    assert len(expected["orders"]) == len(CROWD)


async def test_a_group_that_is_too_large_for_a_message_is_parted(
    shop: Shop, redis_client: Redis, broker: Broker, amqp_url: str, book: Book, postgres_dsn: str
) -> None:
    campaign, group = await crowd(shop, redis_client)
    large = crowd_of(group, 9_000)
    messages = list(encode([campaign, large, campaign]))
    assert len(messages) > 5
    assert max(map(len, messages)) <= MESSAGE_BYTES_MAX + 2
    parts = [envelope for message in messages for envelope in decode(message)]
    assert [one for part in parts for one in singly(part)] == [campaign, *singly(large), campaign]
    await broker.publish(EVENTS, [campaign, large])
    async with working(RabbitSource(Broker(amqp_url)), book):
        await eventually(lambda: orders(postgres_dsn), lambda users: len(users) == 9_000)


async def test_without_a_broker_a_backlog_is_settled_in_bounded_transactions(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    campaign, group = await crowd(shop, redis_client)
    await redis_client.delete(*[shard.outbox for shard in ALL_SHARDS])
    for part in (campaign, *[crowd_of(group, 4_000, 4_000 * number) for number in range(4)]):
        await redis_client.xadd(ALL_SHARDS[0].outbox, {"envelope": orjson.dumps(part)})
    source = OutboxSource(Outbox(redis_client, "worker"), StoreDeadLetters(redis_client))
    await source.open()
    batches = source.batches()
    sizes = []
    for _ in range(2):
        batch = await anext(batches)
        await book.settle(batch.envelopes)
        await batch.done()
        sizes.append(sum(map(events_in, batch.envelopes)))
    assert sizes == [8_001, 8_000]
    assert len(await orders(postgres_dsn)) == 16_000
    assert not any([await redis_client.xlen(shard.outbox) for shard in ALL_SHARDS])


def test_an_event_that_is_larger_than_a_message_goes_alone() -> None:
    small, large = {"type": "x", "id": "a"}, {"type": "x", "id": "b" * MESSAGE_BYTES_MAX}
    messages = encode([small, large, small, small])
    assert [decode(message) for message in messages] == [[small], [large], [small, small]]


@pytest.mark.parametrize("number", [2, 3, 7, 256])
def test_halves_have_every_event_once(number: int) -> None:
    group = {"type": "reserved", "campaign": "x", "who": [str(n) for n in range(2 * number)]}
    waiting: list[Sequence[Envelope]] = [[group]]
    alone: list[str] = []
    while waiting:
        envelopes = waiting.pop()
        parts = halves(envelopes)
        if parts is None:
            alone += envelopes[0]["who"]
        else:
            assert sum(map(events_in, envelopes)) == sum(events_in(one) for part in parts for one in part)
            waiting += parts
    assert sorted(alone, key=int) == group["who"]


async def test_the_metrics_count_reservations(shop: Shop, redis_client: Redis, book: Book) -> None:
    campaign, group = await crowd(shop, redis_client)

    def counted() -> list[float]:
        labels = {"campaign": campaign["id"], "kind": "flash_sale", "type": "reserved"}
        settled = REGISTRY.get_sample_value("doorbuster_settled_events_total", labels)
        lags = REGISTRY.get_sample_value("doorbuster_settlement_lag_seconds_count")
        batch = REGISTRY.get_sample_value("doorbuster_settle_batch_events_sum")
        return [settled or 0.0, lags or 0.0, batch or 0.0]

    before = counted()
    await Worker(OutboxSource(Outbox(redis_client, "x"), StoreDeadLetters(redis_client)), book).settle(
        [campaign, group]
    )
    crowded = len(CROWD)
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [
        crowded,
        crowded,
        crowded + 1,
    ]


@pytest.mark.parametrize("value", [0.0, 0.005, 0.006, 1.0, 999.0])
def test_to_observe_a_value_so_many_times_is_to_observe_it_so_often(value: float) -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    at_once = Histogram("lag", "Lag.", buckets=(0.005, 0.5, 1), registry=one)
    each = Histogram("lag", "Lag.", buckets=(0.005, 0.5, 1), registry=other)
    observe(at_once, value, 3)
    for _ in range(3):
        each.observe(value)
    assert told(one) == told(other)


def told(registry: CollectorRegistry) -> list[bytes]:
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]
