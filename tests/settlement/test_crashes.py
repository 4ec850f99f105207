"""Processes that die at the worst moment: real ones, by SIGKILL, from inside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import psycopg
import pytest
from redis.asyncio import Redis

from reservation.keys import campaign_keys
from reservation.outbox import Outbox
from settlement.audit import Auditor
from settlement.book import Book
from settlement.rabbit import EVENTS, Broker, RabbitSource
from settlement.relay import Relay
from tests.settlement.conftest import Shop
from tests.settlement.running import relaying, working
from tests.stack import SECRETS, eventually

Start = Callable[..., subprocess.Popen[bytes]]
DYING = """
import os, signal
from {module} import {name}

async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{name}.done = die
from doorbuster.cli import main
main()
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a role as a process; `dies_in` names the class whose `done` kills it. None outlives its test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        role: str, environment: Mapping[str, str], dies_in: tuple[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        code = "from doorbuster.cli import main; main()"
        if dies_in is not None:
            code = DYING.format(module=dies_in[0], name=dies_in[1])
        command = [sys.executable, "-c", code, role]
        started.append(subprocess.Popen(command, env={**os.environ, **SECRETS, **environment}))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


async def waiting(client: Redis, shop: Shop) -> int:
    """How many entries have not left the outbox."""
    return int(await client.xlen(campaign_keys(shop.campaign).shard.outbox))


def rows(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.usefixtures("fresh_queues")
@pytest.mark.parametrize("through", ["outbox", "rabbit"])
async def test_a_worker_killed_between_commit_and_ack_leaves_one_order(
    shop: Shop,
    redis_server_url: str,
    amqp_url: str,
    postgres_dsn: str,
    book: Book,
    start: Start,
    through: str,
) -> None:
    environment = {"DOORBUSTER_REDIS_URL": redis_server_url, "DOORBUSTER_POSTGRES_DSN": postgres_dsn}
    relay = None
    dies_in = ("settlement.source", "OutboxBatch")
    if through == "rabbit":
        environment["DOORBUSTER_AMQP_URL"] = amqp_url
        relay = start("relay", environment)
        dies_in = ("settlement.rabbit", "RabbitBatch")
    held = await shop.reserve("ann", 3)
    killed = start("worker", environment, dies_in)
    assert killed.wait(60) == -signal.SIGKILL
    assert rows(postgres_dsn, "orders") == 1, "it died after its commit"
    await shop.pay(held)
    worker = start("worker", environment)
    audit = await Auditor(shop.store, book, settle_seconds_max=30).audit([shop.campaign])
    assert audit.ok, audit.to_json()
    assert (rows(postgres_dsn, "orders"), rows(postgres_dsn, "order_events")) == (1, 3)
    stop(worker)
    if relay is not None:
        stop(relay)


async def test_a_queue_that_is_deleted_under_the_relay_loses_nothing(
    shop: Shop, broker: Broker, amqp_url: str, redis_client: Redis, book: Book
) -> None:
    async with relaying(Relay(Outbox(redis_client, "relay"), Broker(amqp_url))):
        await broker.channel.queue_delete(EVENTS)
        await shop.reserve("ann")
        await eventually(lambda: waiting(redis_client, shop), lambda count: count == 0)
        async with working(RabbitSource(Broker(amqp_url)), book):
            audit = await Auditor(shop.store, book, settle_seconds_max=30).audit([shop.campaign])
            assert audit.ok, audit.to_json()


@pytest.mark.usefixtures("fresh_queues")
async def test_a_relay_killed_between_confirm_and_acknowledge_leaves_one_order(
    shop: Shop,
    redis_client: Redis,
    redis_server_url: str,
    amqp_url: str,
    postgres_dsn: str,
    book: Book,
    start: Start,
) -> None:
    environment = {
        "DOORBUSTER_REDIS_URL": redis_server_url,
        "DOORBUSTER_POSTGRES_DSN": postgres_dsn,
        "DOORBUSTER_AMQP_URL": amqp_url,
    }
    await shop.reserve("ann")
    killed = start("relay", environment, ("reservation.outbox", "Outbox"))
    assert killed.wait(60) == -signal.SIGKILL
    assert await waiting(redis_client, shop) == 2, "what the broker confirmed is still in the outbox"
    worker, relay = start("worker", environment), start("relay", environment)
    await eventually(lambda: waiting(redis_client, shop), lambda count: count == 0, 30)
    audit = await Auditor(shop.store, book, settle_seconds_max=30).audit([shop.campaign])
    assert audit.ok, audit.to_json()
    assert (rows(postgres_dsn, "orders"), rows(postgres_dsn, "order_events")) == (1, 1)
    stop(relay)
    stop(worker)
