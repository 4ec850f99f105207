"""One stack for all end-to-end tests: two gateway processes, with RabbitMQ between outbox and book."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import psycopg
import pytest

from tests.e2e.wire import Scene, set_scene
from tests.stack import Client, Stack, stack


# Not longer than these tests: its worker would take what other tests put into the queue.
@pytest.fixture(scope="package")
def up(tmp_path_factory: pytest.TempPathFactory, amqp_url: str, postgres_server_dsn: str) -> Iterator[Stack]:
    with psycopg.connect(postgres_server_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE e2e")
    dsn = postgres_server_dsn.replace("/postgres?", "/e2e?")
    environment = {"DOORBUSTER_AMQP_URL": amqp_url, "DOORBUSTER_POSTGRES_DSN": dsn}
    with stack(tmp_path_factory.mktemp("up"), "--workers", "2", environment=environment) as running:
        yield running


@pytest.fixture
async def client(up: Stack) -> AsyncIterator[Client]:
    # One connection a request: the kernel then spreads them over both gateway processes. It is kept for no
    # time rather than said to be closed: who says so does not take the fast lane.
    connector = aiohttp.TCPConnector(limit=200, keepalive_timeout=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Client(up.url, session)


@pytest.fixture
def book_connection(up: Stack, postgres_server_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server_dsn.replace("/postgres?", "/e2e?"), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def clean_log(up: Stack) -> Iterator[None]:
    """What a module's tests do is nothing that the stack logs as a defect of its own."""
    start = up.log.stat().st_size
    yield
    said = up.log.read_text()[start:]
    assert "internal_error" not in said, said
    assert "Traceback" not in said, said
    assert up.process.poll() is None


@pytest.fixture(scope="module")
def scene(up: Stack) -> Scene:
    async def set_it() -> Scene:
        async with aiohttp.ClientSession() as session:
            return await set_scene(Client(up.url, session))

    return asyncio.run(set_it())


@pytest.fixture
async def untouched(scene: Scene, client: Client) -> AsyncIterator[Scene]:
    """A scene in which the test changes nothing."""
    yield scene
    await scene.assert_untouched(client)
