"""A list of PostgreSQL servers: the one that takes writes is found, and left when it takes none any more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from redis.asyncio import Redis

from reservation.outbox import Outbox
from settlement.audit import Auditor
from settlement.book import Book, BookUnavailable
from settlement.dead_letters import StoreDeadLetters
from settlement.dsn import complete
from settlement.metrics import SETTLE_FAILURES
from settlement.migrate import migrate
from settlement.source import OutboxSource
from tests.servers import free_port, postgres_server
from tests.settlement.conftest import open_shop
from tests.settlement.running import working
from tests.stack import eventually


@pytest.fixture(scope="module")
def other_server_dsn() -> Iterator[str]:
    """Another server than that of the other tests: whether it takes writes is for these tests to say."""
    with postgres_server() as dsn:
        migrate(dsn)
        yield dsn


def both(first: str, second: str) -> str:
    """One DSN, with the hosts of two."""
    one, two = conninfo_to_dict(first), conninfo_to_dict(second)
    hosts = {"host": f"{one['host']},{two['host']}", "port": f"{one.get('port', '')},{two.get('port', '')}"}
    return make_conninfo(**{**one, **hosts})


def take_writes(dsn: str, *, writes: bool) -> None:
    """From new transactions on: as a primary does that has become a standby."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'off' if writes else 'on'}")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
async def book_on(request: pytest.FixtureRequest) -> AsyncIterator[list[Book]]:
    opened: list[Book] = []
    yield opened
    for book in opened:
        await book.close()


async def opened(dsn: str, books: list[Book]) -> Book:
    book = Book(dsn)
    await book.open()
    books.append(book)
    return book


async def test_the_first_that_is_there_is_taken(other_server_dsn: str, book_on: list[Book]) -> None:
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    dsn = both(away, other_server_dsn)
    migrate(dsn)
    book = await opened(dsn, book_on)
    assert await book.campaign_ids() == []


async def test_a_server_that_takes_no_writes_any_more_is_left_and_nothing_is_refused_for_it(
    other_server_dsn: str, postgres_dsn: str, redis_client: Redis, book_on: list[Book]
) -> None:
    # The second takes its place, with the same name of the database.
    second = postgres_dsn
    name = conninfo_to_dict(second)["dbname"]
    first = make_conninfo(other_server_dsn, dbname=str(name))
    with psycopg.connect(other_server_dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    migrate(first)
    book = await opened(both(first, second), book_on)
    in_second = await opened(second, book_on)
    shop = await open_shop(redis_client, book)
    letters = StoreDeadLetters(redis_client)
    async with working(OutboxSource(Outbox(redis_client, "worker"), letters), book):
        await shop.reserve("ann")
        await eventually(lambda: book.audit_orders(shop.campaign), lambda orders: len(orders) == 1)
        assert await in_second.campaign_ids() == []
        take_writes(first, writes=False)
        try:
            await shop.reserve("bob")
            await eventually(lambda: in_second.audit_orders(shop.campaign), lambda orders: len(orders) == 1)
        finally:
            take_writes(first, writes=True)
    assert await letters.look(10) == [], "what can be written a moment later is no dead letter"


async def test_a_lone_server_that_takes_no_writes_is_waited_for(
    other_server_dsn: str, redis_client: Redis, book_on: list[Book]
) -> None:
    book = await opened(other_server_dsn, book_on)
    shop = await open_shop(redis_client, book)
    letters = StoreDeadLetters(redis_client)

    async def failures() -> float:
        return SETTLE_FAILURES.labels("book_unavailable")._value.get()

    before = await failures()
    take_writes(other_server_dsn, writes=False)
    try:
        outbox = Outbox(redis_client, "worker")
        async with working(OutboxSource(outbox, letters), book):
            await shop.reserve("ann")
            await eventually(failures, lambda count: count > before)
            assert (await outbox.backlog(0)).events == 2, "it waits, and sets nothing aside"
            take_writes(other_server_dsn, writes=True)
            audit = await Auditor(shop.store, book, settle_seconds_max=30).audit([shop.campaign])
            assert audit.ok, audit.to_json()
    finally:
        take_writes(other_server_dsn, writes=True)
    assert await letters.look(10) == []


async def test_nobody_waits_long_for_servers_that_are_away(
    book_on: list[Book], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("settlement.book._CONNECTION_SECONDS_MAX", 1.0)
    ports = free_port(), free_port()
    book = await opened(f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]} dbname=book", book_on)
    began = time.monotonic()
    with pytest.raises(BookUnavailable):
        await book.campaign_ids()
    assert time.monotonic() - began < 3


def test_what_the_dsn_says_is_left_as_it_is() -> None:
    several = conninfo_to_dict(complete("host=a,b dbname=book"))
    assert (several["target_session_attrs"], several["connect_timeout"]) == ("read-write", "2")
    said = conninfo_to_dict(complete("host=a,b target_session_attrs=any connect_timeout=9"))
    assert (said["target_session_attrs"], said["connect_timeout"]) == ("any", "9")
    one = conninfo_to_dict(complete("postgresql://a/book"))
    assert "target_session_attrs" not in one
    assert one["connect_timeout"] == "5"
