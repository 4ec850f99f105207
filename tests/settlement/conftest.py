"""A small sale on real servers, whose events are on their way to the book."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aio_pika
import pytest
from redis.asyncio import Redis

from reservation.administration import Administration
from reservation.catalog import Catalog, parse_campaign
from reservation.clock import StoreClock
from reservation.desk import Desk, Request, Reserved
from reservation.ids import PaymentId, Stage
from reservation.paying import Notice, NoticeType
from reservation.record import Reservation
from reservation.redis_store import RedisStore
from settlement.book import Book
from settlement.rabbit import DEAD, EVENTS, Broker
from tests.stack import sale


@dataclass
class Shop:
    """A desk with one open campaign."""

    desk: Desk
    store: RedisStore
    campaign: str

    async def reserve(self, user: str, quantity: int = 1) -> Reservation:
        reserved = await self.desk.reserve(self.campaign, user, None, user, Request("phone", quantity))
        assert isinstance(reserved, Reserved), reserved
        return reserved.reservation

    async def pay(self, reservation: Reservation) -> None:
        await self.desk.request_payment(reservation.id, reservation.user, Stage.FULL)
        notice = Notice(NoticeType.PAYMENT_SUCCEEDED, Stage.FULL, reservation.facts.price.total, "CNY", "ref")
        await self.desk.take_notice(PaymentId(reservation.id, Stage.FULL), notice)


@pytest.fixture
async def shop(redis_client: Redis, book: Book) -> Shop:
    return await open_shop(redis_client, book)


async def open_shop(client: Redis, book: Book, on_sale: dict[str, Any] | None = None) -> Shop:
    store, clock = RedisStore(client), StoreClock()
    catalog = Catalog(store, clock)
    document = parse_campaign(on_sale or sale())
    await Administration(store, catalog, book).put(document)
    return Shop(Desk(store, catalog, clock), store, document.id)


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[Broker]:
    """A broker whose queues are empty."""
    broker = Broker(amqp_url)
    await broker.open()
    await broker.events.purge()
    await broker.dead.purge()
    yield broker
    await broker.close()


@pytest.fixture
async def fresh_queues(amqp_url: str) -> None:
    """No queues: for processes that declare their own."""
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        await channel.queue_delete(EVENTS)
        await channel.queue_delete(DEAD)
