"""The part that asks what durability costs: reservations a second that Redis takes, by how safe they are
when it answers, and by how many it is asked for at once.

No gateway here: groups are sent one after the other, each when the one before has been answered, as a
gateway sends them.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from redis.asyncio import Redis

from loadtests.bench.figures import Figure
from loadtests.bench.plan import STOCK, sale, terms_on_sale
from loadtests.bench.servers import directory, redis_server
from loadtests.bench.subjects import DOORBUSTER, Bench, Subject
from reservation.ids import digest_of
from reservation.kernel import Terms
from reservation.keys import ALL_SHARDS
from reservation.redis_store import RedisStore, connect_redis
from reservation.replicas import NO_REPLICAS, Replicas
from reservation.reserver import reserve_command
from reservation.scripts import script

PART = "durability"
ON_DISKS = "Valkey, always, 1 replica's disk waited for"


class Setting(NamedTuple):
    fsync: str
    replicas: Replicas = NO_REPLICAS
    program: str | None = None
    """Whose; None is the Redis that `up` embeds."""


SETTINGS = {
    "no fsync": Setting("no"),
    "everysec": Setting("everysec"),
    "always": Setting("always"),
    "everysec, 1 replica waited for": Setting("everysec", Replicas(1)),
    "always, 1 replica waited for": Setting("always", Replicas(1)),
    # Redis 7.0 does not say what is on disk.
    "Valkey, always, 1 replica waited for": Setting("always", Replicas(1), "valkey-server"),
    ON_DISKS: Setting("always", Replicas(1, on_disk=True), "valkey-server"),
}
GROUPS = (1, 8, 64, 256)
_WAIT_MS_MAX = 1_000


def measure(bench: Bench, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Figure]:
    """Raises ServerFailed."""
    if DOORBUSTER not in [subject.name for subject in subjects]:
        return []
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(bench.options.rounds):
        for name, setting in SETTINGS.items():
            if setting.program is not None and shutil.which(setting.program) is None:
                continue  # it is not there
            with _store(bench, setting) as url:
                rates = asyncio.run(_rates(url, setting.replicas, bench.options.seconds / len(GROUPS)))
            for group, rate in rates.items():
                found.setdefault((name, group), []).append(rate)
            said = "  ".join(f"{group}: {rate:,.0f}/s" for group, rate in rates.items())
            say(f"round {number + 1}  {name:<44}{said}")
    return [
        Figure(PART, name, f"groups of {group}", "1/s", tuple(rates))
        for (name, group), rates in found.items()
    ]


@contextmanager
def _store(bench: Bench, setting: Setting) -> Iterator[str]:
    started = partial(redis_server, fsync=setting.fsync, program=setting.program)
    with directory() as home, started(home, bench.cores.rest) as store:
        url = f"redis://127.0.0.1:{store.port}/0"
        if not setting.replicas.count:
            yield url
            return
        with directory() as other, started(other, bench.cores.server) as replica:
            asyncio.run(_follow(url, f"redis://127.0.0.1:{replica.port}/0", store.port))
            yield url


async def _follow(url: str, replica_url: str, port: int) -> None:
    """Let the replica follow, and return when it does."""
    async with Redis.from_url(url) as store, Redis.from_url(replica_url) as replica:
        await replica.replicaof("127.0.0.1", port)
        while not await store.wait(1, 100):
            await store.set("followed", 1)


async def _rates(url: str, replicas: Replicas, seconds: float) -> dict[int, float]:
    client = connect_redis(url)
    try:
        terms = await terms_on_sale(RedisStore(client), sale(STOCK))
        return {group: await _rate(client, terms, group, replicas, seconds) for group in GROUPS}
    finally:
        await client.aclose()


async def _rate(client: Redis, terms: Terms, group: int, replicas: Replicas, seconds: float) -> float:
    command = reserve_command(terms)
    await client.script_load(script("reserve").source)
    began, made = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        users = [f"user-{group}-{made + n}" for n in range(group)]
        who = [one for user in users for one in (digest_of(terms.campaign, user, "key"), user)]
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command(*command, *who)
            for wait in replicas.waits(_WAIT_MS_MAX):
                pipeline.execute_command(*wait)
            (_, _, *outcomes), *waited = await pipeline.execute()
        lacking = replicas.lacking(waited) if waited else ""
        if outcomes != [b"moved"] * group or lacking:
            raise RuntimeError(f"not made, or not there: {outcomes} {lacking}")
        made += group
    rate = made / (time.monotonic() - began)
    await client.delete(*(shard.outbox for shard in ALL_SHARDS))
    return rate
