"""Dead letters: events that the book refused, kept to be looked at and replayed."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import orjson
from redis.asyncio import Redis

from reservation.envelope import Envelope, events_in
from reservation.keys import ALL_SHARDS, ShardKeys, shard_keys, shard_of
from reservation.observer import NOBODY, Observer
from reservation.pipes import Pipes
from reservation.servers import Servers


class DeadLetter(NamedTuple):
    """One event that was set aside, and why."""

    envelope: Envelope
    reason: str


class DeadLetters(Protocol):
    async def put(self, envelope: Envelope, reason: str) -> None:
        """Set one event aside. It is safe when this returns."""
        ...

    async def look(self, limit: int) -> list[DeadLetter]:
        """The oldest dead letters. They stay where they are."""
        ...

    async def count(self) -> int:
        """How many there are."""
        ...

    async def replay(self, limit: int) -> int:
        """Put the oldest dead letters back on their way to the book; how many there were."""
        ...


class StoreDeadLetters:
    """Dead letters in the store: where there is no broker."""

    def __init__(self, servers: Servers, *, observer: Observer = NOBODY) -> None:
        self._pipes = Pipes(servers, observer=observer)

    async def put(self, envelope: Envelope, reason: str) -> None:
        shard = shard_keys(shard_of(str(envelope.get("id", "")).partition(".")[0]))
        fields = ("envelope", orjson.dumps(envelope), "reason", reason)
        await self._pipes.of(shard).call("XADD", shard.dead, "*", *fields)

    async def look(self, limit: int) -> list[DeadLetter]:
        found = [entry for shard in ALL_SHARDS for entry in await self._oldest(shard, limit)]
        found.sort(key=lambda entry: _order(entry[0]))
        return [
            DeadLetter(orjson.loads(fields[b"envelope"]), fields[b"reason"].decode())
            for _, fields in found[:limit]
        ]

    async def count(self) -> int:
        return sum(await self._pipes.each(lambda shard: ("XLEN", shard.dead)))

    async def replay(self, limit: int) -> int:
        replayed = 0
        for shard in ALL_SHARDS:
            for entry_id, fields in await self._oldest(shard, limit - replayed):
                await self._pipes.apart(
                    shard, partial(_replay, shard, entry_id, fields[b"envelope"]), name="replay_dead"
                )
                replayed += 1
            if replayed >= limit:
                break
        return replayed

    async def _oldest(self, shard: ShardKeys, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found = await self._pipes.of(shard).call("XRANGE", shard.dead, "-", "+", "COUNT", limit)
        return [(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in found]


async def _replay(shard: ShardKeys, entry_id: bytes, envelope: bytes, client: Redis) -> None:
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.xadd(shard.outbox, {"envelope": envelope})
        pipeline.incrby(shard.unsettled, events_in(orjson.loads(envelope)))
        pipeline.xdel(shard.dead, entry_id)
        await pipeline.execute()


def _order(entry_id: bytes) -> tuple[int, int]:
    ms, _, number = entry_id.partition(b"-")
    return int(ms), int(number)
