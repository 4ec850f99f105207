"""The store on Redis: two scripts, and reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reservation.ids import ReservationId
from reservation.kernel import (
    RANKED,
    Changes,
    Configured,
    Level,
    Move,
    Moved,
    Place,
    Placed,
    Ranking,
    Snapshot,
    Standing,
    StoredCampaign,
    StoredOrder,
)
from reservation.keys import ALL_SHARDS, campaign_keys, offer_keys, order_keys
from reservation.outcomes import (
    ConfigureOutcome,
    GrantOutcome,
    OrderOutcome,
    Outcome,
    PlaceOutcome,
    RankOutcome,
    StoreUnavailable,
)
from reservation.pipe import Pipe, unable
from reservation.record import Record, Reservation
from reservation.scripts import script

_CONNECTIONS_MAX = 32
_CONNECT_SECONDS_MAX = 2.0
_REPLY_SECONDS_MAX = 5.0
_SCAN_COUNT = 500
ORDER_KEPT_MS = 180 * 24 * 3_600_000
"""A main order that nothing has happened to for so long is forgotten, and grants nothing any more."""


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
        self._place = script("place")
        self._rank = script("rank")
        self._order = script("order")
        self._grant = script("grant")

    async def now_ms(self) -> int:
        return _ms(await self._pipe.call("TIME"))

    async def configure(
        self,
        campaign: str,
        revision: int,
        status: str,
        document: bytes,
        caps: Mapping[str, int],
        ends_at_ms: int,
    ) -> Configured:
        args: list[Any] = [campaign, revision, status, document, ends_at_ms]
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
        found = offer_keys(move.id.campaign, move.sku)
        keys = found.for_move if move.version or move.serves else found.for_new
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
            pipeline.zrange(keys.ranking, 0, -1, withscores=True)
            there, used, caps, tally, packed, events, ranking = await pipeline.execute()
        if not there:
            return None
        reservations = _reservations(campaign, packed)
        unsettled = frozenset(fields[b"id"].decode() for _, fields in events)
        ranked = {f"{RANKED}{user.decode()}": int(score) for user, score in ranking}
        return Snapshot(_counts(used) | ranked, _counts(caps), _counts(tally), reservations, unsettled)

    async def scan(self, campaign: str, cursor: int) -> tuple[int, list[Reservation]]:
        keys = campaign_keys(campaign)
        next_cursor, some = await self._pipe.call("HSCAN", keys.reservations, cursor, "COUNT", _SCAN_COUNT)
        return int(next_cursor), _reservations(campaign, some)

    async def take_place(self, move: Move, details: bytes) -> Placed:
        keys = offer_keys(move.id.campaign, move.sku).for_place
        outcome, now_ms, position = await self._pipe.run(self._place, keys, place_arguments(move, details))
        found = outcome.decode()
        return Placed(PlaceOutcome(found) if found in set(PlaceOutcome) else Outcome(found), now_ms, position)

    async def leave_place(self, campaign: str, sku: str, user: str) -> bool:
        args = [campaign, 0, 0, "", 0, "", "", "", sku, user, 0, "", ""]
        outcome, *_ = await self._pipe.run(self._place, offer_keys(campaign, sku).for_place, args)
        return PlaceOutcome(outcome.decode()) is PlaceOutcome.LEFT

    async def places(self, campaign: str, user: str, skus: Sequence[str]) -> dict[str, tuple[int, Place]]:
        keys = campaign_keys(campaign)
        packed = await self._pipe.call("HMGET", keys.places, *(f"{sku}/{user}" for sku in skus))
        found = {sku: _place(user, one) for sku, one in zip(skus, packed, strict=True) if one is not None}
        ranks = await asyncio.gather(
            *(self._pipe.call("ZRANK", offer_keys(campaign, sku).queue, user) for sku in found)
        )
        there = zip(found.items(), ranks, strict=True)
        return {sku: (int(rank) + 1, place) for (sku, place), rank in there if rank is not None}

    async def queues(self) -> list[tuple[str, str]]:
        names = await self._members(shard.queues for shard in ALL_SHARDS)
        return [(campaign, sku) for campaign, _, sku in (name.partition("/") for name in names)]

    async def queue(self, campaign: str, sku: str, limit: int) -> list[Place]:
        keys = offer_keys(campaign, sku)
        users = [user.decode() for user in await self._pipe.call("ZRANGE", keys.queue, 0, limit - 1)]
        if not users:
            return []
        packed = await self._pipe.call("HMGET", keys.places, *(f"{sku}/{user}" for user in users))
        return [_place(user, one) for user, one in zip(users, packed, strict=True) if one is not None]

    async def ranking(self, campaign: str, user: str | None, limit: int) -> Ranking:
        keys = campaign_keys(campaign).for_rank
        outcome, now_ms, flat, own, above = await self._pipe.run(self._rank, keys, [limit, user or ""])
        entries = tuple((name.decode(), int(float(score))) for name, score in _pairs(flat))
        final = RankOutcome(outcome.decode()) is RankOutcome.FINAL
        return Ranking(final, now_ms, entries, int(float(own)) if own else None, above)

    async def order(self, order_id: str) -> StoredOrder | None:
        version, body = await self._pipe.call("HMGET", order_keys(order_id).order, "version", "body")
        return None if version is None else StoredOrder(int(version), body)

    async def record_order(
        self, order_id: str, version: int, body: bytes, *, unfinished: bool | None, event: bool
    ) -> bool:
        mark = "" if unfinished is None else int(unfinished)
        args = [order_id, version, body, mark, int(event), ORDER_KEPT_MS]
        outcome, *_ = await self._pipe.run(self._order, order_keys(order_id).for_order, args)
        return OrderOutcome(outcome.decode()) is OrderOutcome.RECORDED

    async def unfinished_orders(self) -> list[str]:
        return await self._members(shard.unfinished for shard in ALL_SHARDS)

    async def grant(
        self, campaign: str, revision: int, order_id: str, version: int, caps: Mapping[str, int]
    ) -> GrantOutcome:
        args: list[Any] = [revision, order_id, version]
        for counter, cap in caps.items():
            args += (counter, cap)
        outcome, _ = await self._pipe.run(self._grant, campaign_keys(campaign).for_grant, args)
        return GrantOutcome(outcome.decode())

    async def _members(self, keys: Iterable[str]) -> list[str]:
        """What is in these sets, sorted."""
        async with self._read() as pipeline:
            for key in keys:
                pipeline.smembers(key)
            found = await pipeline.execute()
        return sorted(name.decode() for members in found for name in members)

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


def _reservations(campaign: str, packed: Mapping[bytes, bytes]) -> list[Reservation]:
    """From digest -> packed record."""
    return [
        Reservation.of(ReservationId(campaign, digest.decode()), Record.unpack(record))
        for digest, record in packed.items()
    ]


def _pairs(flat: Sequence[Any]) -> zip[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _place(user: str, packed: bytes) -> Place:
    units, _, details = packed.partition(b" ")
    return Place(user, int(units), details)


def _id(text: bytes) -> ReservationId:
    found = ReservationId.parse(text.decode())
    if found is None:
        raise ValueError(f"not a reservation id: {text!r}")
    return found


def move_arguments(move: Move) -> list[Any]:
    """ARGV of move.lua."""
    return [
        move.id.campaign,
        move.id.digest,
        move.version,
        move.fingerprint,
        *_campaign_arguments(move),
        int(move.heeds_status),
        move.user,
        move.sku,
        move.quantity,
        move.state,
        move.hold_ms,
        move.deadline_ms,
        move.facts,
        move.event,
        move.data,
        move.queued,
        int(move.serves),
        *_claim_arguments(move),
    ]


def place_arguments(move: Move, details: bytes) -> list[Any]:
    """ARGV of place.lua."""
    return [
        move.id.campaign,
        *_campaign_arguments(move),
        move.sku,
        move.user,
        move.quantity,
        details,
        move.queued,
        *_claim_arguments(move),
    ]


def _campaign_arguments(move: Move) -> list[Any]:
    """What lua/include/campaign.lua reads."""
    gate = move.gate
    return [
        move.revision,
        gate.opens_at_ms,
        gate.before,
        gate.closes_at_ms,
        gate.after,
        move.first_refusal,
        move.last_refusal,
    ]


def _claim_arguments(move: Move) -> list[Any]:
    args: list[Any] = []
    for claim in move.claims:
        args += (claim.counter, claim.n, "" if claim.cap is None else claim.cap, claim.refusal)
    return args
