"""How the store is asked is told: by script and command, by batch and group, and when there is no answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from doorbuster.vitals import StoreMetrics
from reservation import pipe as pipes
from reservation.ids import digest_of
from reservation.observer import Failure
from reservation.outbox import Outbox
from reservation.outcomes import StoreUnavailable
from reservation.redis_store import RedisStore, connect_redis
from reservation.replicas import Replicas
from settlement.dead_letters import StoreDeadLetters
from tests.contract.test_kernel import SALE
from tests.counts import counted, rising
from tests.test_pipe import Server, on_sale, server  # noqa: F401  (a fixture)

ROLE = "of-the-store"


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:  # noqa: F811
    client = connect_redis(server.url)
    yield client
    await client.aclose()


def runs(name: str) -> float:
    return counted("doorbuster_store_command_duration_seconds_count", role=ROLE, command=name)


def failed(failure: Failure) -> float:
    return counted("doorbuster_store_failures_total", role=ROLE, reason=failure)


async def test_scripts_and_commands_are_told_by_their_names(client: Redis) -> None:
    metrics = StoreMetrics(ROLE)
    store, outbox = RedisStore(client, observer=metrics), Outbox(client, "reader", observer=metrics)
    terms = await on_sale(store)
    await store.reserve(terms, digest_of(SALE, "zoe", "1"), "zoe")  # from here on it knows the script
    metrics.tell()
    before = {name: runs(name) for name in ("reserve", "configure", "time", "standing", "snapshot", "forget")}
    with (
        rising("doorbuster_reserve_group_reservations_sum") as reservations,
        rising("doorbuster_reserve_group_reservations_count") as groups,
    ):
        asked = (store.reserve(terms, digest_of(SALE, f"u{n}", "1"), f"u{n}") for n in range(50))
        await asyncio.gather(*asked)
        metrics.tell()
    await store.now_ms()
    await store.standing(SALE, ["stock/phone"])
    await store.snapshot(SALE)
    await outbox.open()
    await outbox.done(await outbox.next())
    await StoreDeadLetters(client, observer=metrics).count()
    metrics.tell()
    rose = {name: runs(name) - count for name, count in before.items()}
    assert reservations.by == 50
    assert 1 <= groups.by == rose.pop("reserve") <= 2
    assert rose.pop("forget") >= 1  # once more where it did not know the script
    assert rose == {"configure": 0, "time": 1, "standing": 1, "snapshot": 1}
    assert runs("xlen") == 16
    assert counted("doorbuster_store_batch_commands_count", role=ROLE) > 0


async def test_a_store_that_went_is_told_command_by_command(server: Server, client: Redis) -> None:  # noqa: F811
    store = RedisStore(client, observer=StoreMetrics(ROLE))
    await store.now_ms()
    before = failed(Failure.AWAY) + failed(Failure.LOST)
    await server.kill()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.now_ms()
    with pytest.raises(StoreUnavailable):
        await store.standing(SALE, ["stock/phone"])
    assert failed(Failure.AWAY) + failed(Failure.LOST) - before == 4


async def test_what_was_on_its_way_is_lost_and_what_took_too_long_is_late(
    server: Server,  # noqa: F811
    client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = RedisStore(client, observer=StoreMetrics(ROLE))
    await store.now_ms()
    pid = await server.pid()
    late, lost = failed(Failure.LATE), failed(Failure.LOST)
    with monkeypatch.context() as patched:
        patched.setattr(pipes, "REPLY_SECONDS_MAX", 0.2)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable):
                await store.now_ms()
        finally:
            os.kill(pid, signal.SIGCONT)
    assert (failed(Failure.LATE), failed(Failure.LOST)) == (late + 1, lost)
    await store.now_ms()
    os.kill(pid, signal.SIGSTOP)
    asking = asyncio.gather(store.now_ms(), store.now_ms(), return_exceptions=True)
    await asyncio.sleep(0.05)  # it is written by then; should it not be, that is told as away
    os.kill(pid, signal.SIGKILL)
    assert all(isinstance(one, StoreUnavailable) for one in await asking)
    assert (failed(Failure.LATE), failed(Failure.LOST)) == (late + 1, lost + 2)


async def test_a_store_that_cannot_serve_is_told_and_so_are_replicas_that_are_not_there(
    client: Redis,
) -> None:
    metrics = StoreMetrics(ROLE)
    store = RedisStore(client, observer=metrics)
    terms = await on_sale(store)
    unable, replicas = failed(Failure.UNABLE), failed(Failure.REPLICAS)
    await client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable):
        await store.reserve(terms, digest_of(SALE, "ann", "1"), "ann")
    await client.config_set("maxmemory", 0)
    assert (failed(Failure.UNABLE), failed(Failure.REPLICAS)) == (unable + 1, replicas)
    alone = RedisStore(client, replicas=Replicas(1), observer=metrics)
    with pytest.raises(StoreUnavailable):
        await alone.reserve(terms, digest_of(SALE, "bob", "1"), "bob")
    with pytest.raises(StoreUnavailable):
        await alone.reserve(terms, digest_of(SALE, "bob", "2"), "bob")
    assert (failed(Failure.UNABLE), failed(Failure.REPLICAS)) == (unable + 1, replicas + 2)
