"""The outbox: events that were committed with their state and have not reached the book yet.

One stream a shard, read by a consumer group, so that several readers share the work. An entry is
deleted when its reader is done with it and never otherwise: the outbox is not trimmed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
import ormsgpack
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from reservation.envelope import Envelope, events_in
from reservation.fence import Fence
from reservation.keys import ALL_SHARDS, ShardKeys
from reservation.outcomes import StoreUnavailable
from reservation.pipe import Pipe, unable
from reservation.record import MadeOn, Record
from reservation.scripts import script

GROUP = "settlement"
READ_ENTRIES_MAX = 64
"""Of one shard in one read."""
READ_SECONDS_MIN = 0.05
"""From a read that has found few to the next. A read, a message and a transaction cost much the same
however many events they are for: when a sale opens, this halves what settling takes from the gateways'
machine. What comes after a quiet while is read at once."""
BLOCK_MS = 1_000
IDLE_MS_MIN = 5_000
"""An entry that its reader has not finished in this time may be taken over by another."""


class Entry(NamedTuple):
    """One entry of the outbox: what one run of a script did."""

    stream: str
    entry_id: bytes
    envelope: Envelope


class Backlog(NamedTuple):
    """How much waits in the outbox, and for how long the oldest has."""

    events: int
    oldest_ms: int


def open_entry(fields: dict[bytes, bytes]) -> Envelope:
    """The envelope that a stream entry makes; one of type unreadable when it makes none."""
    try:
        return _open(fields)
    except (KeyError, TypeError, ValueError) as error:
        raw = {repr(name): repr(value) for name, value in fields.items()}
        return {"type": "unreadable", "id": "", "error": repr(error), "raw": raw}


def ids_of_entry(fields: dict[bytes, bytes]) -> list[str]:
    """The ids that a stream entry's events are about."""
    if b"who" not in fields:
        return [fields[b"id"].decode()] if b"id" in fields else []
    campaign = fields[b"campaign"].decode()
    return [f"{campaign}.{digest}" for digest in ormsgpack.unpackb(fields[b"who"])[::2]]


def _open(fields: dict[bytes, bytes]) -> Envelope:
    if b"envelope" in fields:  # replayed: it was opened before
        return _replayed(fields[b"envelope"])
    envelope: Envelope = {"type": fields[b"type"].decode()}
    if b"who" in fields:
        envelope["campaign"] = fields[b"campaign"].decode()
        envelope["at"] = int(fields[b"at"])
        envelope["terms"] = MadeOn.unpack(fields[b"terms"])._asdict()
        envelope["who"] = ormsgpack.unpackb(fields[b"who"])
        envelope["data"] = orjson.loads(fields[b"data"])
        return envelope
    envelope["id"] = fields[b"id"].decode()
    if b"record" in fields:
        envelope["record"] = Record.of(ormsgpack.unpackb(fields[b"record"]))._asdict()
        envelope["data"] = orjson.loads(fields[b"data"])
    elif b"body" in fields:
        envelope["version"] = int(fields[b"version"])
        envelope["body"] = orjson.loads(fields[b"body"])
        envelope["at"] = int(fields[b"at"])
    else:
        envelope["revision"] = int(fields[b"revision"])
        envelope["status"] = fields[b"status"].decode()
        envelope["document"] = orjson.loads(fields[b"document"])
        envelope["at"] = int(fields[b"at"])
    return envelope


def _replayed(packed: bytes) -> Envelope:
    envelope = orjson.loads(packed)
    if not isinstance(envelope, dict):
        raise ValueError("not an envelope")
    return envelope


class Outbox:
    """Reads the outbox as one consumer. Every method may raise StoreUnavailable."""

    def __init__(self, client: Redis, consumer: str) -> None:
        self._client = client
        self._fence = Fence()
        self._pipe = Pipe(client, self._fence.enter)
        self._consumer = consumer
        self._streams = [shard.outbox for shard in ALL_SHARDS]
        self._take_over_at = 0.0
        self._read_at = 0.0
        """Not before."""

    async def open(self) -> None:
        """Make sure that the consumer group is there."""
        for stream in self._streams:
            try:
                await self._client.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except (RedisError, OSError) as error:
                if "BUSYGROUP" not in str(error):
                    raise _fault(error) from error

    async def close(self) -> None:
        """Leave the group. What this reader had not finished stays for the others."""
        for stream in self._streams:
            try:
                pending = await self._client.xpending_range(
                    stream, GROUP, "-", "+", 1, consumername=self._consumer
                )
                if not pending:
                    await self._client.xgroup_delconsumer(stream, GROUP, self._consumer)
            except (RedisError, OSError) as error:
                if "NOGROUP" not in str(error):  # told to stop before it had begun
                    raise _fault(error) from error

    async def next(self) -> list[Entry]:
        """What a dead reader left, else what nobody has read yet; waits up to BLOCK_MS for it."""
        # Where the store went and came back, it is entered anew: what was read may be more than it now has.
        await self._pipe.call("PING")
        now = time.monotonic()
        if now >= self._take_over_at:
            self._take_over_at = now + IDLE_MS_MIN / 1000
            taken = await self.take_over()
            if taken:
                self._take_over_at = now  # there may be more
                return taken
        return await self.read()

    async def read(self) -> list[Entry]:
        """What nobody has read yet: waits up to BLOCK_MS for the first."""
        await asyncio.sleep(max(0.0, self._read_at - time.monotonic()))
        try:
            found = await self._client.xreadgroup(
                GROUP,
                self._consumer,
                dict.fromkeys(self._streams, ">"),
                count=READ_ENTRIES_MAX,
                block=BLOCK_MS,
            )
        except (RedisError, OSError) as error:
            if isinstance(error, ResponseError) and "NOGROUP" in str(error):
                await self.open()  # the store was emptied under us
                return []
            raise _fault(error) from error
        streams = found.items() if isinstance(found, dict) else found
        read = [
            Entry(_text(stream), entry_id, open_entry(fields))
            for stream, entries in streams
            for entry_id, fields in _flat(entries)
        ]
        for entry in read:
            self._fence.saw(self._shard(entry.stream), entry.entry_id)
        self._read_at = time.monotonic() + (READ_SECONDS_MIN if len(read) < READ_ENTRIES_MAX else 0.0)
        return read

    async def take_over(self) -> list[Entry]:
        """What another reader began and did not finish: it died, or is very slow."""
        taken: list[Entry] = []
        try:
            for stream in self._streams:
                _, entries, *_ = await self._client.xautoclaim(
                    stream, GROUP, self._consumer, IDLE_MS_MIN, count=READ_ENTRIES_MAX
                )
                taken += [
                    Entry(stream, entry_id, open_entry(fields)) for entry_id, fields in entries if fields
                ]
        except (RedisError, OSError) as error:
            raise _fault(error) from error
        return taken

    async def done(self, entries: Sequence[Entry]) -> None:
        """The entries are safe elsewhere: forget them. Twice is harmless."""
        by_shard: dict[ShardKeys, list[Any]] = {}
        for entry in entries:
            by_shard.setdefault(self._shard(entry.stream), [GROUP]).extend(
                (entry.entry_id, events_in(entry.envelope))
            )
        forget = script("forget")
        await asyncio.gather(
            *(self._pipe.run(forget, shard.for_forget, args) for shard, args in by_shard.items())
        )

    def _shard(self, stream: str) -> ShardKeys:
        return ALL_SHARDS[self._streams.index(stream)]

    async def backlog(self, now_ms: int) -> Backlog:
        """How many events wait, and how old the oldest is, in ms."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for shard in ALL_SHARDS:
                    pipeline.get(shard.unsettled)
                    pipeline.xrange(shard.outbox, count=1)
                found = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _fault(error) from error
        firsts = [int(entries[0][0].split(b"-")[0]) for entries in found[1::2] if entries]
        events = max(0, sum(int(count or 0) for count in found[::2]))
        return Backlog(events, max(0, now_ms - min(firsts)) if firsts else 0)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _flat(entries: Any) -> Any:
    """redis-py answers a stream's entries flat, or as a list of lists on RESP3."""
    if entries and isinstance(entries[0], list) and isinstance(entries[0][0], (list, tuple)):
        return [entry for part in entries for entry in part]
    return entries


def _fault(error: Exception) -> Exception:
    return StoreUnavailable(str(error)) if unable(error) else error
