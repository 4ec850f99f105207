"""The store on Redis: two scripts, and reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reservation.ids import ReservationId
from reservation.kernel import Changes, Configured, Level, Move, Moved, Snapshot, Standing, StoredCampaign
from reservation.keys import ALL_SHARDS, campaign_keys
from reservation.outcomes import ConfigureOutcome, Outcome, StoreUnavailable
from reservation.pipe import Pipe, unable
from reservation.record import Record, Reservation
from reservation.scripts import script

_CONNECTIONS_MAX = 32
_CONNECT_SECONDS_MAX = 2.0
_REPLY_SECONDS_MAX = 5.0


def connect_redis(url: str) -> Redis:
    """A client that fails at once rather than retry: only the caller knows what may be repeated.

    Who comes when all its connections are in use waits for one; that is a queue, and no fault.
    """
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS_MAX,
        timeout=_REPLY_SECONDS_MAX,
        socket_connect_timeout=_CONNECT_SECONDS_MAX,
        socket_timeout=_REPLY_SECONDS_MAX,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    return Redis.from_pool(pool)


def _ms(time: Sequence[Any]) -> int:
    return int(time[0]) * 1000 + int(time[1]) // 1000


def _counts(found: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in found.items()}


class RedisStore:
    """Live state in Redis; see kernel.Store for what it promises."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._pipe = Pipe(client)
        self._move = script("move")
        self._configure = script("configure")

    async def now_ms(self) -> int:
        return _ms(await self._pipe.call("TIME"))

    async def configure(
        self, campaign: str, revision: int, status: str, document: bytes, caps: Mapping[str, int]
    ) -> Configured:
        args: list[Any] = [campaign, revision, status, document]
        for counter, cap in caps.items():
            args += (counter, cap)
        keys = campaign_keys(campaign).for_configure
        outcome, now_ms, current, counter = await self._pipe.run(self._configure, keys, args)
        return Configured(ConfigureOutcome(outcome.decode()), now_ms, current, counter.decode())

    async def campaign(self, campaign: str) -> StoredCampaign | None:
        keys = campaign_keys(campaign)
        revision, status, document, changed_at = await self._pipe.call(
            "HMGET", keys.campaign, "revision", "status", "document", "changed_at"
        )
        if revision is None:
            return None
        return StoredCampaign(campaign, int(revision), status.decode(), document, int(changed_at))

    async def changes(self, cursor: tuple[int, ...]) -> Changes:
        seen = cursor or (0,) * len(ALL_SHARDS)
        async with self._read() as pipeline:
            pipeline.time()
            for shard, last in zip(ALL_SHARDS, seen, strict=True):
                pipeline.get(shard.changes)
                pipeline.zrangebyscore(shard.campaigns, f"({last}", "+inf")
            time, *found = await pipeline.execute()
        numbers = tuple(int(number or 0) for number in found[::2])
        changed = [name.decode() for names in found[1::2] for name in names]
        if any(number < last for number, last in zip(numbers, seen, strict=True)):
            # The store is not the one we knew: it was emptied, or an older copy came back.
            return await self.changes((0,) * len(ALL_SHARDS))
        return Changes(_ms(time), tuple(changed), numbers)

    async def move(self, move: Move) -> Moved:
        keys = campaign_keys(move.id.campaign).for_move
        outcome, now_ms, packed = await self._pipe.run(self._move, keys, move_arguments(move))
        return Moved(Outcome(outcome.decode()), now_ms, self._unpack(move.id, packed))

    async def reservation(self, reservation_id: ReservationId) -> Reservation | None:
        keys = campaign_keys(reservation_id.campaign)
        packed = await self._pipe.call("HGET", keys.reservations, reservation_id.digest)
        return self._unpack(reservation_id, packed)

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Reservation | None]:
        async with self._read() as pipeline:
            for one in ids:
                pipeline.hget(campaign_keys(one.campaign).reservations, one.digest)
            found = await pipeline.execute()
        return [self._unpack(one, packed) for one, packed in zip(ids, found, strict=True)]

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        async with self._read() as pipeline:
            for shard in ALL_SHARDS:
                pipeline.hget(shard.index, user)
            found = await pipeline.execute()
        return [_id(text) for ids in found if ids for text in ids.split(b" ")]

    async def standing(self, campaign: str, counters: Sequence[str]) -> Standing:
        keys = campaign_keys(campaign)
        async with self._read(transaction=True) as pipeline:
            pipeline.hmget(keys.used, list(counters))
            pipeline.hmget(keys.caps, list(counters))
            pipeline.hgetall(keys.tally)
            used, caps, tally = await pipeline.execute()
        levels = (Level(int(n or 0), int(cap or 0)) for n, cap in zip(used, caps, strict=True))
        return Standing(tuple(levels), _counts(tally))

    async def due(self, limit: int) -> list[ReservationId]:
        now_ms = await self.now_ms()
        async with self._read() as pipeline:
            for shard in ALL_SHARDS:
                pipeline.zrangebyscore(shard.deadlines, "-inf", now_ms, start=0, num=limit)
            found = await pipeline.execute()
        return [_id(text) for ids in found for text in ids]

    async def snapshot(self, campaign: str) -> Snapshot | None:
        keys = campaign_keys(campaign)
        async with self._read(transaction=True) as pipeline:
            pipeline.exists(keys.campaign)
            pipeline.hgetall(keys.used)
            pipeline.hgetall(keys.caps)
            pipeline.hgetall(keys.tally)
            pipeline.hgetall(keys.reservations)
            pipeline.xrange(keys.shard.outbox)
            there, used, caps, tally, packed, events = await pipeline.execute()
        if not there:
            return None
        reservations = [
            Reservation.of(ReservationId(campaign, digest.decode()), Record.unpack(record))
            for digest, record in packed.items()
        ]
        unsettled = frozenset(fields[b"id"].decode() for _, fields in events)
        return Snapshot(_counts(used), _counts(caps), _counts(tally), reservations, unsettled)

    def _read(self, *, transaction: bool = False) -> _Reading:
        return _Reading(self._client, transaction)

    @staticmethod
    def _unpack(reservation_id: ReservationId, packed: bytes | None) -> Reservation | None:
        return Reservation.of(reservation_id, Record.unpack(packed)) if packed else None


class _Reading:
    """A pipeline of reads whose faults are the store's."""

    def __init__(self, client: Redis, transaction: bool) -> None:
        self._pipeline = client.pipeline(transaction=transaction)

    async def __aenter__(self) -> Any:
        return self._pipeline

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        await self._pipeline.reset()  # type: ignore[no-untyped-call]
        if isinstance(error, Exception) and unable(error):
            raise StoreUnavailable(str(error)) from error


def _id(text: bytes) -> ReservationId:
    found = ReservationId.parse(text.decode())
    if found is None:
        raise ValueError(f"not a reservation id: {text!r}")
    return found


def move_arguments(move: Move) -> list[Any]:
    """ARGV of move.lua."""
    gate = move.gate
    args: list[Any] = [
        move.id.campaign,
        move.id.digest,
        move.version,
        move.fingerprint,
        move.revision,
        gate.opens_at_ms,
        gate.before,
        gate.closes_at_ms,
        gate.after,
        move.first_refusal,
        move.last_refusal,
        move.user,
        move.sku,
        move.quantity,
        move.state,
        move.hold_ms,
        move.deadline_ms,
        move.facts,
        move.event,
        move.data,
    ]
    for claim in move.claims:
        args += (claim.counter, claim.n, "" if claim.cap is None else claim.cap, claim.refusal)
    return args
