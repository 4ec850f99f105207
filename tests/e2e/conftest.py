"""One stack for all end-to-end tests: two gateway processes, with RabbitMQ between outbox and book."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import psycopg
import pytest

from tests.stack import Client, Stack, stack


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory, amqp_url: str, postgres_server_dsn: str) -> Iterator[Stack]:
    with psycopg.connect(postgres_server_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE e2e")
    dsn = postgres_server_dsn.replace("/postgres?", "/e2e?")
    environment = {"DOORBUSTER_AMQP_URL": amqp_url, "DOORBUSTER_POSTGRES_DSN": dsn}
    with stack(tmp_path_factory.mktemp("up"), "--workers", "2", environment=environment) as running:
        yield running


@pytest.fixture
async def client(up: Stack) -> AsyncIterator[Client]:
    # One connection a request: the kernel then spreads them over both gateway processes.
    connector = aiohttp.TCPConnector(limit=200, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Client(up.url, session)


@pytest.fixture
def book_connection(up: Stack, postgres_server_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server_dsn.replace("/postgres?", "/e2e?"), autocommit=True) as connection:
        yield connection
