"""The book takes events late, twice and in any order, and comes to the same rows."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest
from redis.asyncio import Redis

from reservation.envelope import Envelope
from reservation.outbox import Outbox
from settlement.book import Book, BookUnavailable
from tests.settlement.conftest import Shop

ROWS = {
    "orders": "SELECT reservation_id, state, version, quantity, total, paid, refunded, lines, created_at,"
    " updated_at FROM orders ORDER BY 1",
    "order_events": "SELECT * FROM order_events ORDER BY 1, 2",
    "payments": "SELECT * FROM payments ORDER BY 1",
    "campaigns": "SELECT * FROM campaigns ORDER BY 1",
}


async def events_of_a_sale(shop: Shop, client: Redis) -> list[Envelope]:
    """What a few shoppers leave in the outbox, in order."""
    ann, bob, cat = [await shop.reserve(user) for user in ("ann", "bob", "cat")]
    await shop.pay(ann)
    await shop.desk.cancel(bob.id, "bob")
    await shop.pay(bob)  # nothing to pay for: refused
    await shop.pay(cat)
    outbox = Outbox(client, "test")
    await outbox.open()
    entries = sorted(await outbox.read(), key=lambda entry: entry.entry_id)
    return [entry.envelope for entry in entries]


def rows(dsn: str) -> dict[str, list[Any]]:
    with psycopg.connect(dsn) as connection:
        return {table: connection.execute(query).fetchall() for table, query in ROWS.items()}


async def test_order_lateness_and_repetition_do_not_matter(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    events = await events_of_a_sale(shop, redis_client)
    await book.settle(events)
    expected = rows(postgres_dsn)
    assert [row[1] for row in expected["orders"]].count("confirmed") == 2
    assert len(expected["order_events"]) == 8
    dice = random.Random(7)
    for _ in range(25):
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(
                "TRUNCATE orders, order_events, payments, refunds, campaigns, campaign_revisions"
            )
        shuffled = events + dice.choices(events, k=5)
        dice.shuffle(shuffled)
        while shuffled:
            size = dice.randint(1, 4)
            await book.settle(shuffled[:size])
            del shuffled[:size]
        assert rows(postgres_dsn) == expected


async def test_a_book_that_is_away_says_so() -> None:
    book = Book("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    book._pool.timeout = 0.2
    await book.open()
    with pytest.raises(BookUnavailable):
        await book.ping()
    await book.close()
