"""One suite over every store: the model, and the scripts on two Redis versions, Valkey, and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from reservation.kernel import Store
from reservation.model import ModelStore
from reservation.outbox import ids_of_entry
from reservation.pipes import Pipes
from reservation.redis_store import RedisStore
from reservation.servers import Servers, connected
from tests.conftest import empty_redis
from tests.ha.redis_servers import Nodes


@dataclass
class Bench:
    """A store, a way to let its clock go on, and a way to see its outbox."""

    store: Store
    let_pass: Callable[[int], Awaitable[None]]
    """Return when at least so many ms have passed on the store's clock."""
    events: Callable[[], Awaitable[list[tuple[str, str]]]]
    """Type and id of every event in the outbox, in order."""


@pytest.fixture(params=["model", "redis", "wheel-redis", "valkey", "cluster"])
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
    if request.param == "cluster":
        nodes: Nodes = request.getfixturevalue("cluster")
        for node in nodes.nodes:
            node.call("FLUSHALL")
        async with connected(nodes.url) as servers:
            yield _bench(servers)
        return
    url = request.getfixturevalue(f"{request.param.replace('-', '_')}_server_url")
    async with empty_redis(url) as client:
        yield _bench(client)


def _bench(servers: Servers) -> Bench:
    store, pipes = RedisStore(servers), Pipes(servers)

    async def wait(ms: int) -> None:
        until = await store.now_ms() + ms
        while await store.now_ms() < until:
            await asyncio.sleep(0.001)

    async def events() -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for entries in await pipes.each(lambda shard: ("XRANGE", shard.outbox, "-", "+")):
            for _, flat in entries:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                found += [(fields[b"type"].decode(), one) for one in ids_of_entry(fields)]
        return found

    return Bench(store, wait, events)
