"""A stack with all its traces collected: RabbitMQ between outbox and book, and every reservation sampled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp
import psycopg
import pytest

from tests.stack import Client, Stack, stack
from tests.traces.collector import Collector, collecting

SHOPPER_ADDRESS = "127.0.0.77"
"""Where shoppers connect from: an address of this machine that nobody else has."""


@dataclass
class Traced:
    """A stack, and what it has sent to its collector."""

    stack: Stack
    collector: Collector


@pytest.fixture(scope="package")
def traced(
    tmp_path_factory: pytest.TempPathFactory, amqp_url: str, postgres_server_dsn: str
) -> Iterator[Traced]:
    with psycopg.connect(postgres_server_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE traces")
    with collecting() as collector:
        environment = {
            "DOORBUSTER_AMQP_URL": amqp_url,
            "DOORBUSTER_POSTGRES_DSN": postgres_server_dsn.replace("/postgres?", "/traces?"),
            "DOORBUSTER_TRACES_URL": collector.url.removesuffix("/v1/traces"),
            "DOORBUSTER_TRACES_SAMPLE": "1",
        }
        with stack(tmp_path_factory.mktemp("traced"), "--workers", "1", environment=environment) as running:
            yield Traced(running, collector)


@pytest.fixture
async def client(traced: Traced) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(local_addr=(SHOPPER_ADDRESS, 0))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Client(traced.stack.url, session)
