"""A broker of three nodes, of which one dies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from reservation.outbox import Outbox
from settlement.audit import Auditor
from settlement.book import Book
from settlement.rabbit import Broker, RabbitSource
from settlement.relay import Relay
from tests.ha.rabbit_nodes import Nodes, rabbit_nodes
from tests.settlement.conftest import open_shop
from tests.settlement.running import relaying, working
from tests.stack import eventually

SHOPPERS = 40


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with rabbit_nodes(tmp_path_factory.mktemp("rabbits")) as found:
        yield found


async def test_a_node_that_dies_is_left_for_another_and_nothing_is_lost(
    nodes: Nodes, redis_client: Redis, book: Book
) -> None:
    shop = await open_shop(redis_client, book)
    dies = nodes.urls[0]
    publishes, consumes = Broker(dies), Broker(dies)
    async with (
        relaying(Relay(Outbox(redis_client, "relay"), publishes)),
        working(RabbitSource(consumes), book),
    ):
        for broker in (publishes, consumes):
            broker.urls = nodes.urls  # the others become known when both are where the queue's leader is

        async def paid() -> int:
            """Orders that the book has as paid."""
            return sum(one.paid > 0 for one in (await book.audit_orders(shop.campaign)).values())

        async def shopping() -> None:
            for n in range(SHOPPERS):
                held = await shop.reserve(f"user-{n}")
                await shop.pay(held)

        buying = asyncio.create_task(shopping())
        await eventually(paid, lambda count: count >= SHOPPERS // 4)
        await asyncio.to_thread(nodes.kill, dies)
        await buying
        audit = await Auditor(shop.store, book, settle_seconds_max=30).audit([shop.campaign])
        assert audit.ok, audit.to_json()
    assert await paid() == SHOPPERS
