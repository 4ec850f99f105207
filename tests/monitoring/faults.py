"""Faults, each of which an alert is for: what breaks, until the alert fires, and is then mended.

A fault is a block: broken inside, mended when it is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import psycopg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from loadtests.faults.processes import listens
from reservation.keys import campaign_keys
from reservation.tasks import end
from settlement.rabbit import DEAD, EVENTS
from tests.monitoring.crowd import IDLE, Crowd
from tests.monitoring.scaled import SCRAPE_SECONDS
from tests.monitoring.watched import Watched

LATE_SECONDS = 12.0
Fault = Callable[[Watched, Crowd], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def counter_changed_by_hand(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """Somebody writes to a counter of stock in Redis."""
    used = campaign_keys(IDLE).used
    [counter] = [name for name in await watched.store.hkeys(used) if b"phone" in name]
    await watched.store.hincrby(used, counter, 1)
    try:
        yield
    finally:
        await watched.store.hincrby(used, counter, -1)


@asynccontextmanager
async def poison(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A message that is no event is in the queue."""
    connection = await aio_pika.connect(watched.rabbit.url)
    async with connection, connection.channel() as channel:
        await channel.default_exchange.publish(aio_pika.Message(b"not JSON"), routing_key=EVENTS)
        yield
        await (await channel.declare_queue(DEAD, passive=True)).purge()


@asynccontextmanager
async def reservation_deleted(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """Somebody deletes a reservation from Redis."""
    reservations = campaign_keys(IDLE).reservations
    found = await watched.store.hgetall(reservations)
    await watched.store.delete(reservations)
    try:
        yield
    finally:
        await watched.store.hset(reservations, mapping=found)


@asynccontextmanager
async def provider_down(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """The payment provider takes no refunds."""
    watched.outside.takes_refunds = False
    try:
        yield
    finally:
        watched.outside.takes_refunds = True


@asynccontextmanager
async def merchant_down(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """The merchant takes no notifications, and has not for ten minutes."""
    watched.outside.notifications_answer = "refused"
    async with await psycopg.AsyncConnection.connect(watched.dsn, autocommit=True) as book:
        aged = 0
        while not aged:
            done = await book.execute(
                "UPDATE notifications SET created_at = created_at - interval '10 minutes'"
                " WHERE status = 'pending'"
            )
            aged = done.rowcount
            await asyncio.sleep(0.1)
        yield
        watched.outside.notifications_answer = "taken"
        # It would be tried again by itself, later than a test likes to wait.
        await book.execute("UPDATE notifications SET next_attempt_at = now() WHERE status = 'pending'")


@asynccontextmanager
async def forger(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """Most payment notices have a signature that does not fit."""
    crowd.forging = True
    try:
        yield
    finally:
        crowd.forging = False


@asynccontextmanager
async def memory_used_up(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A Redis has used nine tenths of what it may."""
    async with Redis.from_url(watched.replica.url) as replica:
        used = (await replica.info("memory"))["used_memory"]
        await replica.config_set("maxmemory", used * 10 // 9)
        yield
        await replica.config_set("maxmemory", 0)


@asynccontextmanager
async def clients_too_many(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A Redis has as many clients as it may."""
    async with Redis.from_url(watched.replica.url) as replica:
        await replica.config_set("maxclients", 1)
        for _ in range(3):
            with suppress(RedisError, OSError):
                async with Redis.from_url(watched.replica.url) as refused:
                    await refused.ping()
        await replica.config_set("maxclients", 10_000)
    yield


@asynccontextmanager
async def connections_taken(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """Others have most of PostgreSQL's connections."""
    with ExitStack() as taken:

        def take() -> None:
            for _ in range(78):
                taken.enter_context(psycopg.connect(watched.dsn))

        await asyncio.to_thread(take)
        yield


@asynccontextmanager
async def gateways_dying(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """All processes of a gateway are killed, three times."""
    supervisor, port = watched.processes["gateway"].pid, urlsplit(watched.client.url).port
    for _ in range(3):
        serving: list[int] = []
        while len(serving) < 2:
            await asyncio.sleep(0.2)
            found = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
            with suppress(OSError):
                serving = [pid for pid in map(int, found) if listens(pid, port or 0)]
        await asyncio.sleep(SCRAPE_SECONDS + 0.5)  # so that they have been counted
        for pid in serving:
            os.kill(pid, signal.SIGKILL)
    yield


@asynccontextmanager
async def relay_ending(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A relay ends and is started again, three times."""
    for _ in range(3):
        await asyncio.sleep(SCRAPE_SECONDS + 0.5)  # so that it has been seen
        await watched.restart("relay")
    yield


@asynccontextmanager
async def loop_held_up(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A worker is stopped for half a second at a time."""
    worker = watched.processes["worker"]

    async def hold_up() -> None:
        while True:
            worker.send(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            worker.send(signal.SIGCONT)
            await asyncio.sleep(0.3)

    holding = asyncio.create_task(hold_up())
    try:
        yield
    finally:
        await end(holding)
        worker.send(signal.SIGCONT)


@asynccontextmanager
async def replica_hanging(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A replica says nothing, and keeps its connection."""
    watched.replica.send(signal.SIGSTOP)
    try:
        yield
    finally:
        watched.replica.send(signal.SIGCONT)


@asynccontextmanager
async def replica_away(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A replica is killed."""
    await watched.replica.kill()
    try:
        yield
    finally:
        await watched.replica.start()


@asynccontextmanager
async def broker_full(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """RabbitMQ is out of memory and disk."""
    control = watched.rabbit.control
    await asyncio.to_thread(control, "set_vm_memory_high_watermark", "0.00001")
    await asyncio.to_thread(control, "set_disk_free_limit", "100000GB")
    try:
        yield
    finally:
        await asyncio.to_thread(control, "set_disk_free_limit", "1MB")
        await asyncio.to_thread(control, "set_vm_memory_high_watermark", "0.4")


@asynccontextmanager
async def standby_behind(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A standby of PostgreSQL does not keep up."""
    async with (
        await psycopg.AsyncConnection.connect(watched.standby_dsn, autocommit=True) as standby,
        await psycopg.AsyncConnection.connect(watched.dsn, autocommit=True) as book,
    ):
        await standby.execute("SELECT pg_wal_replay_pause()")
        await book.execute("SELECT pg_logical_emit_message(true, 'much', repeat('x', 70 * 1024 * 1024))")
        try:
            yield
        finally:
            await standby.execute("SELECT pg_wal_replay_resume()")


@asynccontextmanager
async def standby_away(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """A standby of PostgreSQL has ended."""
    await watched.standby.stop()
    try:
        yield
    finally:
        await watched.standby.start()


@asynccontextmanager
async def exporter_away(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """An exporter has ended."""
    await watched.processes["host"].kill()
    try:
        yield
    finally:
        await watched.processes["host"].start()


@asynccontextmanager
async def worker_gone(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """There is no worker."""
    await watched.processes["worker"].stop()
    try:
        yield
    finally:
        await watched.processes["worker"].start()


@asynccontextmanager
async def book_down(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """PostgreSQL is away, for longer than anything should take into the book."""
    await watched.postgres.kill(signal.SIGQUIT)
    await asyncio.sleep(LATE_SECONDS)
    try:
        yield
    finally:
        await watched.postgres.start()


@asynccontextmanager
async def store_slow(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """Redis stands still for 0.7 s, again and again."""

    async def pause() -> None:
        while True:
            await watched.store.execute_command("CLIENT", "PAUSE", 700, "ALL")
            await asyncio.sleep(0.9)

    pausing = asyncio.create_task(pause())
    try:
        yield
    finally:
        await end(pausing)


@asynccontextmanager
async def store_killed(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """Redis is killed."""
    await watched.redis.kill()
    try:
        yield
    finally:
        await watched.redis.start()


@asynccontextmanager
async def store_back_with_less(watched: Watched, crowd: Crowd) -> AsyncIterator[None]:
    """Redis comes back without the end of its log."""
    log = watched.redis.log_file
    size = log.stat().st_size
    await asyncio.sleep(1.0)
    await watched.redis.kill()
    os.truncate(log, size)
    await watched.redis.start()
    try:
        yield
    finally:
        await watched.doorbuster("reconcile", "--repair")
