"""The outbox: events that were committed with their state and have not reached the book yet.

One stream a shard, read by a consumer group, so that several readers share the work. An entry is
deleted when its reader is done with it and never otherwise: the outbox is not trimmed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from reservation.keys import ALL_SHARDS
from reservation.outcomes import StoreUnavailable
from reservation.pipe import unable
from reservation.record import Record

GROUP = "settlement"
READ_EVENTS_MAX = 256
"""Of one shard in one read."""
BLOCK_MS = 1_000
IDLE_MS_MIN = 5_000
"""An entry that its reader has not finished in this time may be taken over by another."""

Envelope = dict[str, Any]
"""An event as JSON: {type, id, record, data} of a reservation, {type, id, version, body, at} of a main
order, or {type, id, revision, status, document, at} of a campaign. record has the fields of record.Record."""


class Entry(NamedTuple):
    """One event in the outbox."""

    stream: str
    entry_id: bytes
    envelope: Envelope


class Backlog(NamedTuple):
    """How much waits in the outbox, and for how long the oldest has."""

    events: int
    oldest_ms: int


def open_envelope(fields: dict[bytes, bytes]) -> Envelope:
    """The envelope that a stream entry's fields make; of type unreadable when they make none."""
    try:
        return _open(fields)
    except (KeyError, TypeError, ValueError) as error:
        raw = {repr(name): repr(value) for name, value in fields.items()}
        return {"type": "unreadable", "id": "", "error": repr(error), "raw": raw}


def _open(fields: dict[bytes, bytes]) -> Envelope:
    if b"envelope" in fields:  # replayed: it was opened before
        replayed: Envelope = orjson.loads(fields[b"envelope"])
        return replayed
    envelope: Envelope = {"type": fields[b"type"].decode(), "id": fields[b"id"].decode()}
    if b"record" in fields:
        envelope["record"] = Record.unpack(fields[b"record"])._asdict()
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


class Outbox:
    """Reads the outbox as one consumer. Every method may raise StoreUnavailable."""

    def __init__(self, client: Redis, consumer: str) -> None:
        self._client = client
        self._consumer = consumer
        self._streams = [shard.outbox for shard in ALL_SHARDS]
        self._take_over_at = 0.0

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
        try:
            found = await self._client.xreadgroup(
                GROUP,
                self._consumer,
                dict.fromkeys(self._streams, ">"),
                count=READ_EVENTS_MAX,
                block=BLOCK_MS,
            )
        except (RedisError, OSError) as error:
            if isinstance(error, ResponseError) and "NOGROUP" in str(error):
                await self.open()  # the store was emptied under us
                return []
            raise _fault(error) from error
        streams = found.items() if isinstance(found, dict) else found
        return [
            Entry(_text(stream), entry_id, open_envelope(fields))
            for stream, entries in streams
            for entry_id, fields in _flat(entries)
        ]

    async def take_over(self) -> list[Entry]:
        """What another reader began and did not finish: it died, or is very slow."""
        taken: list[Entry] = []
        try:
            for stream in self._streams:
                _, entries, *_ = await self._client.xautoclaim(
                    stream, GROUP, self._consumer, IDLE_MS_MIN, count=READ_EVENTS_MAX
                )
                taken += [
                    Entry(stream, entry_id, open_envelope(fields)) for entry_id, fields in entries if fields
                ]
        except (RedisError, OSError) as error:
            raise _fault(error) from error
        return taken

    async def done(self, entries: Sequence[Entry]) -> None:
        """The entries are safe elsewhere: forget them."""
        by_stream: dict[str, list[bytes]] = {}
        for entry in entries:
            by_stream.setdefault(entry.stream, []).append(entry.entry_id)
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                for stream, ids in by_stream.items():
                    pipeline.xack(stream, GROUP, *ids)
                    pipeline.xdel(stream, *ids)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _fault(error) from error

    async def backlog(self, now_ms: int) -> Backlog:
        """How many events wait, and how old the oldest is, in ms."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for stream in self._streams:
                    pipeline.xlen(stream)
                    pipeline.xrange(stream, count=1)
                found = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _fault(error) from error
        firsts = [int(entries[0][0].split(b"-")[0]) for entries in found[1::2] if entries]
        return Backlog(sum(found[::2]), max(0, now_ms - min(firsts)) if firsts else 0)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _flat(entries: Any) -> Any:
    """redis-py answers a stream's entries flat, or as a list of lists on RESP3."""
    if entries and isinstance(entries[0], list) and isinstance(entries[0][0], (list, tuple)):
        return [entry for part in entries for entry in part]
    return entries


def _fault(error: Exception) -> Exception:
    return StoreUnavailable(str(error)) if unable(error) else error
