"""Connecting to the store: one server, the master that sentinels name, or the nodes of a cluster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reservation.cluster import Cluster
from reservation.pipe import REPLY_SECONDS_MAX
from reservation.redis_url import Sentinels, parse_redis_url
from reservation.sentinel import connect_to_master
from reservation.tasks import end

Servers = Redis | Cluster
"""A client of the one server that keeps all shards at a time, or of several that share them."""

_CONNECTIONS_MAX = 32
_CONNECT_SECONDS_MAX = 2.0


def connect_redis(url: str) -> Redis:
    """A client of one server. It fails at once rather than retry: only the caller knows what may be repeated.

    Who comes when all its connections are in use waits for one; that is a queue, and no fault.
    """
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(url, **_options())
    return Redis.from_pool(pool)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Servers]:
    """A client of whatever the URL names, which keeps up with who keeps what while the block lasts."""
    named = parse_redis_url(url)
    if isinstance(named, str):
        async with connect_redis(named) as client:
            yield client
        return
    if isinstance(named, Sentinels):
        client, masters = connect_to_master(named, _options())
        following = asyncio.create_task(masters.follow())
        try:
            yield client
        finally:
            await end(following)
            await client.aclose()
            await masters.aclose()
        return
    cluster = Cluster(named, _options())
    following = asyncio.create_task(cluster.follow())
    try:
        yield cluster
    finally:
        await end(following)
        await cluster.aclose()


def any_client(servers: Servers) -> Redis:
    """A client of one of them, whichever."""
    return servers if isinstance(servers, Redis) else servers.client(random.choice(servers.owners))  # noqa: S311


async def all_clients(servers: Servers) -> list[Redis]:
    """A client of each of them that keeps a shard."""
    if isinstance(servers, Redis):
        return [servers]
    await servers.learn()
    return [servers.client(one) for one in servers.nodes()]


def _options() -> dict[str, Any]:
    """What every pool is made with."""
    return {
        "max_connections": _CONNECTIONS_MAX,
        "timeout": REPLY_SECONDS_MAX,
        "socket_connect_timeout": _CONNECT_SECONDS_MAX,
        "socket_timeout": REPLY_SECONDS_MAX,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }
