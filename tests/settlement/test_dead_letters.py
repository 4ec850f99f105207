"""Events that the book refuses are set aside, and the others go on."""

from __future__ import annotations

import copy

import orjson
import psycopg
from redis.asyncio import Redis

from reservation.envelope import Envelope, singly
from reservation.outbox import Outbox
from settlement.book import Book
from settlement.dead_letters import StoreDeadLetters
from settlement.rabbit import DEAD, DELIVERIES_MAX, EVENTS, Broker, RabbitSource
from settlement.relay import Relay
from settlement.source import OutboxSource
from tests.settlement.conftest import Shop
from tests.settlement.running import relaying, working
from tests.stack import eventually


async def orders(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT user_id FROM orders ORDER BY 1").fetchall()]


def spoiled(envelope: Envelope) -> Envelope:
    """The same event with something in it that PostgreSQL refuses."""
    bad = copy.deepcopy(envelope)
    bad["data"]["lines"] = [{"sku": "phone", "title": "\x00", "quantity": 1}]
    return bad


async def test_one_bad_event_does_not_stop_the_others(
    shop: Shop, redis_client: Redis, broker: Broker, amqp_url: str, book: Book, postgres_dsn: str
) -> None:
    for user in ("ann", "bob", "cat"):
        await shop.reserve(user)
    outbox = Outbox(redis_client, "test")
    await outbox.open()
    events = [one for entry in await outbox.read() for one in singly(entry.envelope)]
    bad = next(i for i, one in enumerate(events) if one.get("record", {}).get("user") == "bob")
    await broker.publish(EVENTS, [*events[:bad], spoiled(events[bad]), *events[bad + 1 :]])
    source = RabbitSource(Broker(amqp_url))
    async with working(source, book):
        await eventually(lambda: orders(postgres_dsn), lambda users: users == ["ann", "cat"])
        letters = await eventually(lambda: source.dead_letters.look(10), lambda found: len(found) == 1)
        assert letters[0].envelope["record"]["user"] == "bob"
        assert "\\u0000" in letters[0].reason
        # Looking leaves it there; and once whatever was wrong is mended, it is replayed.
        assert len(await source.dead_letters.look(10)) == 1
        await broker.dead.purge()
        await broker.publish(DEAD, [events[bad]])
        assert await source.dead_letters.replay(10) == 1
        await eventually(lambda: orders(postgres_dsn), lambda users: users == ["ann", "bob", "cat"])
        assert await source.dead_letters.look(10) == []


async def test_what_is_no_event_at_all_is_set_aside(
    shop: Shop, broker: Broker, amqp_url: str, book: Book, redis_client: Redis, postgres_dsn: str
) -> None:
    for body in (
        b"not json",
        b"{}",
        b"[1]",
        orjson.dumps([{"type": "reserved", "id": "x", "record": {}, "data": {}}]),
    ):
        message = broker_message(body)
        await broker.channel.default_exchange.publish(message, routing_key=EVENTS)
    await shop.reserve("ann")
    relay = Relay(Outbox(redis_client, "relay"), Broker(amqp_url))
    source = RabbitSource(Broker(amqp_url))
    async with relaying(relay), working(source, book):
        await eventually(lambda: orders(postgres_dsn), lambda users: users == ["ann"])
        await eventually(lambda: source.dead_letters.look(10), lambda found: len(found) == 4)


async def test_a_message_that_no_worker_survives_is_set_aside(broker: Broker) -> None:
    await broker.publish(EVENTS, [{"type": "reserved", "id": "deadly"}])
    for _ in range(DELIVERIES_MAX + 1):
        message = await eventually(lambda: broker.events.get(fail=False), lambda found: found is not None)
        await message.nack(requeue=True)
    dead = await eventually(lambda: broker.dead.get(fail=False), lambda found: found is not None)
    assert orjson.loads(dead.body)[0]["id"] == "deadly"
    assert await broker.events.get(fail=False) is None
    await dead.ack()


async def test_without_a_broker_dead_letters_wait_in_the_store(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    await shop.reserve("ann")
    outbox = Outbox(redis_client, "test")
    await outbox.open()
    (entry,) = [entry for entry in await outbox.read() if "who" in entry.envelope]
    (envelope,) = singly(entry.envelope)
    await outbox.done([entry])
    letters = StoreDeadLetters(redis_client)
    await redis_client.xadd(entry.stream, {"envelope": orjson.dumps(spoiled(envelope))})
    await redis_client.xadd(entry.stream, {"what": "ever"})
    await redis_client.incrby(entry.stream.replace("outbox", "unsettled"), 2)
    async with working(OutboxSource(Outbox(redis_client, "worker"), letters), book):
        found = await eventually(lambda: letters.look(10), lambda found: len(found) == 2)
        assert {letter.envelope["type"] for letter in found} == {"reserved", "unreadable"}
        assert await orders(postgres_dsn) == []
        async for key in redis_client.scan_iter(match="*:dead"):
            await redis_client.delete(key)
        await letters.put(envelope, "was mended")
        assert await letters.replay(10) == 1
        await eventually(lambda: orders(postgres_dsn), lambda users: users == ["ann"])
        await eventually(lambda: outbox.backlog(0), lambda backlog: backlog.events == 0)


def broker_message(body: bytes) -> object:
    import aio_pika

    return aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
