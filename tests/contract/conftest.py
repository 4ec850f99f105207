"""One suite over every store: the model, and the scripts on two versions of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from reservation.kernel import Store
from reservation.model import ModelStore
from reservation.outbox import ids_of_entry
from reservation.redis_store import RedisStore
from tests.conftest import empty_redis


@dataclass
class Bench:
    """A store, a way to let its clock go on, and a way to see its outbox."""

    store: Store
    let_pass: Callable[[int], Awaitable[None]]
    """Return when at least so many ms have passed on the store's clock."""
    events: Callable[[], Awaitable[list[tuple[str, str]]]]
    """Type and id of every event in the outbox, in order."""


@pytest.fixture(params=["model", "redis", "wheel-redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "model":
        clock = [1_000_000_000_000]
        model = ModelStore(lambda: clock[0])

        async def tick(ms: int) -> None:
            clock[0] += ms

        async def model_events() -> list[tuple[str, str]]:
            return [(event.type, event.id) for event in model.outbox]

        yield Bench(model, tick, model_events)
        return
    url = request.getfixturevalue(f"{request.param.replace('-', '_')}_server_url")
    async with empty_redis(url) as client:
        yield _bench(client)


def _bench(client: Redis) -> Bench:
    store = RedisStore(client)

    async def wait(ms: int) -> None:
        until = await store.now_ms() + ms
        while await store.now_ms() < until:
            await asyncio.sleep(0.001)

    async def events() -> list[tuple[str, str]]:
        found: list[tuple[Any, tuple[str, str]]] = []
        async for key in client.scan_iter(match="*:outbox"):
            for entry_id, fields in await client.xrange(key):
                kind = fields[b"type"].decode()
                found += [(entry_id, (kind, one)) for one in ids_of_entry(fields)]
        return [event for _, event in found]

    return Bench(store, wait, events)
