"""The outbox: an entry may hold the events of a whole crowd."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from reservation.keys import shard_keys, shard_of
from reservation.outbox import Entry, Outbox
from settlement.audit import Auditor
from settlement.book import Book
from settlement.rabbit import Broker, RabbitSource
from settlement.relay import Relay
from tests.settlement.conftest import Shop
from tests.settlement.running import working

CROWD = ("ann", "bob", "cat", "dan", "käthe")


async def crowded(shop: Shop, client: Redis) -> tuple[Outbox, list[Entry]]:
    """What the crowd leaves in the outbox, and before it the campaign."""
    await asyncio.gather(*map(shop.reserve, CROWD))
    outbox = Outbox(client, "test")
    await outbox.open()
    return outbox, await outbox.read()


async def test_a_crowds_events_are_one_entry_and_as_many_in_the_book(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    _, (campaign, crowd) = await crowded(shop, redis_client)
    assert campaign.envelope["type"] == "campaign_changed"
    assert crowd.envelope["who"][1::2] == [*CROWD]
    await book.settle([campaign.envelope, crowd.envelope])
    audit = await Auditor(shop.store, book, settle_seconds_max=0).audit([shop.campaign])
    assert audit.ok, audit.to_json()


async def test_a_crowds_events_reach_the_book_through_the_broker(
    shop: Shop, redis_client: Redis, book: Book, broker: Broker, amqp_url: str
) -> None:
    outbox, entries = await crowded(shop, redis_client)
    await Relay(outbox, broker).relay(entries)
    assert (await outbox.backlog(0)).events == 0
    async with working(RabbitSource(Broker(amqp_url)), book):
        audit = await Auditor(shop.store, book, settle_seconds_max=30).audit([shop.campaign])
        assert audit.ok, audit.to_json()


async def test_what_nobody_can_read_does_not_count_as_a_backlog_for_ever(
    shop: Shop, redis_client: Redis
) -> None:
    outbox, entries = await crowded(shop, redis_client)
    shard = shard_keys(shard_of(shop.campaign))
    await redis_client.xadd(shard.outbox, {"type": "reserved", "campaign": shop.campaign, "who": "torn"})
    await redis_client.incrby(shard.unsettled, 40)
    (torn,) = await outbox.read()
    assert torn.envelope["type"] == "unreadable"
    await outbox.done([torn])
    assert (await outbox.backlog(0)).events == 1 + len(CROWD) + 39
    await outbox.done(entries)
    assert (await outbox.backlog(0)).events == 0


async def test_an_entry_that_is_forgotten_twice_is_counted_off_once(shop: Shop, redis_client: Redis) -> None:
    outbox, entries = await crowded(shop, redis_client)
    assert (await outbox.backlog(0)).events == 1 + len(CROWD)
    await outbox.done(entries[1:])
    await outbox.done(entries[1:])
    assert (await outbox.backlog(0)).events == 1
    await outbox.done(entries)
    await shop.reserve("eve")
    assert (await outbox.backlog(0)).events == 1
