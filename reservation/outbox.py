"""The outbox: events that were committed with their state and have not reached the book yet.

One stream a shard, read by a consumer group, so that several readers share the work. An entry is
deleted when its reader is done with it and never otherwise: the outbox is not trimmed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson
import ormsgpack
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from reservation.envelope import Envelope, events_in
from reservation.fence import Fence
from reservation.keys import ALL_SHARDS, ShardKeys
from reservation.observer import NOBODY, Observer
from reservation.pipes import Pipes, together
from reservation.record import MadeOn, Record
from reservation.replicas import NO_REPLICAS, Replicas
from reservation.scripts import script
from reservation.servers import Servers

GROUP = "settlement"
_EMPTIED = ("NOGROUP", "UNBLOCKED")
"""What the store says to who reads when it was emptied under them, or while they wait."""
READ_ENTRIES_MAX = 64
"""Of one shard in one read."""
READ_SECONDS_MIN = 0.05
"""From a read that has found few to the next. A read, a message and a transaction cost much the same
however many events they are for: when a sale opens, this halves what settling takes from the gateways'
machine. What comes after a quiet while is read at once."""
BLOCK_MS = 1_000
LOOK_SECONDS = 0.1
"""From one look at the nodes of a cluster to the next, while there is nothing."""
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

    def __init__(
        self,
        servers: Servers,
        consumer: str,
        *,
        replicas: Replicas = NO_REPLICAS,
        observer: Observer = NOBODY,
    ) -> None:
        """`replicas` must have what `next` gives: what they lack was never acknowledged."""
        self._replicas = replicas
        self._fence = Fence()
        self._pipes = Pipes(servers, self._fence.enter, observer=observer)
        self._consumer = consumer
        self._by_stream = {shard.outbox: shard for shard in ALL_SHARDS}
        self._take_over_at = 0.0
        self._read_at = 0.0
        """Not before."""

    async def open(self) -> None:
        """Make sure that the consumer group is there."""
        for shard in ALL_SHARDS:
            try:
                await self._ask(shard, "XGROUP", "CREATE", shard.outbox, GROUP, "0", "MKSTREAM")
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def close(self) -> None:
        """Leave the group. What this reader had not finished stays for the others."""
        for shard in ALL_SHARDS:
            try:
                pending = await self._ask(shard, "XPENDING", shard.outbox, GROUP, "-", "+", 1, self._consumer)
                if not pending:
                    await self._ask(shard, "XGROUP", "DELCONSUMER", shard.outbox, GROUP, self._consumer)
            except ResponseError as error:
                if "NOGROUP" not in str(error):  # told to stop before it had begun
                    raise

    async def next(self) -> list[Entry]:
        """What a dead reader left, else what nobody has read yet; waits up to BLOCK_MS for it."""
        # Where the store went and came back, it is entered anew: what was read may be more than it now has.
        await together(pipe.call("PING") for pipe in self._pipes.all)
        now = time.monotonic()
        if now >= self._take_over_at:
            self._take_over_at = now + IDLE_MS_MIN / 1000
            taken = await self.take_over()
            if taken:
                self._take_over_at = now  # there may be more
                return await self._replicated(taken)
        read = await self._replicated(await self.read())
        for entry in read:
            self._fence.saw(self._by_stream[entry.stream], entry.entry_id)
        return read

    async def _replicated(self, entries: list[Entry]) -> list[Entry]:
        """These, once replicas have them. Raises StoreUnavailable; then they come again, as if we died."""
        if self._replicas.count and entries:
            await together(pipe.confirm(self._replicas) for pipe in self._pipes.all)
        return entries

    async def read(self) -> list[Entry]:
        """What nobody has read yet: waits up to BLOCK_MS for the first."""
        await asyncio.sleep(max(0.0, self._read_at - time.monotonic()))
        try:
            read = await (self._read_one() if self._pipes.one is not None else self._read_several())
        except ResponseError as error:
            if not str(error).startswith(_EMPTIED):
                raise
            await self.open()
            return []
        self._read_at = time.monotonic() + (READ_SECONDS_MIN if len(read) < READ_ENTRIES_MAX else 0.0)
        return read

    async def _read_one(self) -> list[Entry]:
        """From the one server, which says when there is something."""
        streams: dict[Any, Any] = dict.fromkeys(self._by_stream, ">")

        async def read(client: Redis) -> Any:
            return await client.xreadgroup(
                GROUP, self._consumer, streams, count=READ_ENTRIES_MAX, block=BLOCK_MS
            )

        found = await self._pipes.apart(ALL_SHARDS[0], read)
        return [
            Entry(_text(stream), entry_id, open_entry(fields))
            for stream, entries in (found.items() if isinstance(found, dict) else found)
            for entry_id, fields in _flat(entries)
        ]

    async def _read_several(self) -> list[Entry]:
        """From the nodes of a cluster, none of which waits for more than one shard: look now and then."""
        until = time.monotonic() + BLOCK_MS / 1000
        group = ("GROUP", GROUP, self._consumer, "COUNT", READ_ENTRIES_MAX)
        while True:
            found = await self._pipes.each(lambda shard: ("XREADGROUP", *group, "STREAMS", shard.outbox, ">"))
            read = [
                Entry(shard.outbox, entry_id, open_entry(fields))
                for shard, streams in zip(ALL_SHARDS, found, strict=True)
                for _, entries in (streams.items() if isinstance(streams, dict) else streams or ())
                for entry_id, fields in _with_fields(entries)
            ]
            if read or time.monotonic() >= until:
                return read
            await asyncio.sleep(LOOK_SECONDS)

    async def take_over(self) -> list[Entry]:
        """What another reader began and did not finish: it died, or is very slow."""
        found = await self._pipes.each(
            lambda shard: (
                *("XAUTOCLAIM", shard.outbox, GROUP, self._consumer, IDLE_MS_MIN, "0-0"),
                *("COUNT", READ_ENTRIES_MAX),
            )
        )
        return [
            Entry(shard.outbox, entry_id, open_entry(fields))
            for shard, (_, entries, *_) in zip(ALL_SHARDS, found, strict=True)
            for entry_id, fields in _with_fields(entries)
        ]

    async def done(self, entries: Sequence[Entry]) -> None:
        """The entries are safe elsewhere: forget them. Twice is harmless."""
        by_shard: dict[ShardKeys, list[Any]] = {}
        for entry in entries:
            shard = self._by_stream[entry.stream]
            by_shard.setdefault(shard, [GROUP]).extend((entry.entry_id, events_in(entry.envelope)))
        forget = script("forget")
        await together(
            self._pipes.of(shard).run(forget, shard.for_forget, args) for shard, args in by_shard.items()
        )

    async def backlog(self, now_ms: int) -> Backlog:
        """How many events wait, and how old the oldest is, in ms."""
        counts, entries = await asyncio.gather(
            self._pipes.each(lambda shard: ("GET", shard.unsettled)),
            self._pipes.each(lambda shard: ("XRANGE", shard.outbox, "-", "+", "COUNT", 1)),
        )
        firsts = [int(some[0][0].split(b"-")[0]) for some in entries if some]
        events = max(0, sum(int(count or 0) for count in counts))
        return Backlog(events, max(0, now_ms - min(firsts)) if firsts else 0)

    def _ask(self, shard: ShardKeys, *command: Any) -> Awaitable[Any]:
        return self._pipes.of(shard).call(*command)


def _with_fields(entries: Iterable[Any]) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Entries as the server writes them; without those that were deleted meanwhile."""
    for entry in entries:
        if entry is not None and entry[1]:
            names_and_values = iter(entry[1])
            yield entry[0], dict(zip(names_and_values, names_and_values, strict=True))


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _flat(entries: Any) -> Any:
    """redis-py answers a stream's entries flat, or as a list of lists on RESP3."""
    if entries and isinstance(entries[0], list) and isinstance(entries[0][0], (list, tuple)):
        return [entry for part in entries for entry in part]
    return entries
