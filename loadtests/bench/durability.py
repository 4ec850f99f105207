"""The part that asks what durability costs: reservations a second that Redis takes, by how safe they are
when it answers, and by how many it is asked for at once.

No gateway here: groups are sent one after the other, each when the one before has been answered, as a
gateway sends them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis

from loadtests.bench.figures import Figure
from loadtests.bench.plan import STOCK, sale, terms_on_sale
from loadtests.bench.servers import directory, redis_server
from loadtests.bench.subjects import DOORBUSTER, Bench, Subject
from reservation.ids import digest_of
from reservation.kernel import Terms
from reservation.keys import ALL_SHARDS
from reservation.redis_store import RedisStore, connect_redis
from reservation.reserver import reserve_command
from reservation.scripts import script

PART = "durability"
SETTINGS = {
    "no fsync": ("no", False),
    "everysec": ("everysec", False),
    "always": ("always", False),
    "everysec, 1 replica waited for": ("everysec", True),
    "always, 1 replica waited for": ("always", True),
}
GROUPS = (1, 8, 64, 256)
_WAIT_MS_MAX = 1_000


def measure(bench: Bench, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Figure]:
    """Raises ServerFailed."""
    if DOORBUSTER not in [subject.name for subject in subjects]:
        return []
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(bench.options.rounds):
        for name, (fsync, replicated) in SETTINGS.items():
            with _store(bench, fsync, replicated) as url:
                rates = asyncio.run(_rates(url, replicated, bench.options.seconds / len(GROUPS)))
            for group, rate in rates.items():
                found.setdefault((name, group), []).append(rate)
            said = "  ".join(f"{group}: {rate:,.0f}/s" for group, rate in rates.items())
            say(f"round {number + 1}  {name:<32}{said}")
    return [
        Figure(PART, name, f"groups of {group}", "1/s", tuple(rates))
        for (name, group), rates in found.items()
    ]


@contextmanager
def _store(bench: Bench, fsync: str, replicated: bool) -> Iterator[str]:
    with directory() as home, redis_server(home, bench.cores.rest, fsync) as store:
        url = f"redis://127.0.0.1:{store.port}/0"
        if not replicated:
            yield url
            return
        with directory() as other, redis_server(other, bench.cores.server, fsync) as replica:
            asyncio.run(_follow(url, f"redis://127.0.0.1:{replica.port}/0", store.port))
            yield url


async def _follow(url: str, replica_url: str, port: int) -> None:
    """Let the replica follow, and return when it does."""
    async with Redis.from_url(url) as store, Redis.from_url(replica_url) as replica:
        await replica.replicaof("127.0.0.1", port)
        while not await store.wait(1, 100):
            await store.set("followed", 1)


async def _rates(url: str, replicated: bool, seconds: float) -> dict[int, float]:
    client = connect_redis(url)
    try:
        terms = await terms_on_sale(RedisStore(client), sale(STOCK))
        return {group: await _rate(client, terms, group, replicated, seconds) for group in GROUPS}
    finally:
        await client.aclose()


async def _rate(client: Redis, terms: Terms, group: int, replicated: bool, seconds: float) -> float:
    command = reserve_command(terms)
    await client.script_load(script("reserve").source)
    began, made = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        users = [f"user-{group}-{made + n}" for n in range(group)]
        who = [one for user in users for one in (digest_of(terms.campaign, user, "key"), user)]
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command(*command, *who)
            if replicated:
                pipeline.execute_command("WAIT", 1, _WAIT_MS_MAX)
            replies: list[Any] = await pipeline.execute()
        if replies[0][1:] != [b"moved"] * group or (replicated and not replies[1]):
            raise RuntimeError(f"not made, or not there: {replies}")
        made += group
    rate = made / (time.monotonic() - began)
    await client.delete(*(shard.outbox for shard in ALL_SHARDS))
    return rate
