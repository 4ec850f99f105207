"""The store on Redis: scripts that change it, and reads. reserver.py makes new reservations, in groups."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import ormsgpack
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reservation.fence import Fence, Run, fence_commands, read_run
from reservation.ids import ReservationId
from reservation.kernel import (
    RANKED,
    Asking,
    Changes,
    Configured,
    Level,
    Move,
    Moved,
    Place,
    Placed,
    Ranking,
    Restored,
    Snapshot,
    Standing,
    StoredCampaign,
    StoredOrder,
    Terms,
)
from reservation.keys import ALL_SHARDS, ShardKeys, campaign_keys, offer_keys, order_keys
from reservation.outbox import ids_of_entry
from reservation.outcomes import (
    ConfigureOutcome,
    GrantOutcome,
    OrderOutcome,
    Outcome,
    PlaceOutcome,
    RankOutcome,
    RestateOutcome,
    RestoreOutcome,
    StoreUnavailable,
)
from reservation.pipe import REPLY_SECONDS_MAX, Pipe, unable
from reservation.record import Facts, MadeOn, Record, Reservation, ShortRecord, unpack_record
from reservation.reserver import Reserver, claim_arguments, gate_arguments, made_on
from reservation.scripts import script

T = TypeVar("T")
_CONNECTIONS_MAX = 32
_CONNECT_SECONDS_MAX = 2.0
_SCAN_COUNT = 500
_ENTRIES_AT_ONCE = 64
_KNOWN_TERMS_MAX = 10_000
ORDER_KEPT_MS = 180 * 24 * 3_600_000
"""A main order that nothing has happened to for so long is forgotten, and grants nothing any more."""


def connect_redis(url: str) -> Redis:
    """A client that fails at once rather than retry: only the caller knows what may be repeated.

    Who comes when all its connections are in use waits for one; that is a queue, and no fault.
    """
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS_MAX,
        timeout=REPLY_SECONDS_MAX,
        socket_connect_timeout=_CONNECT_SECONDS_MAX,
        socket_timeout=REPLY_SECONDS_MAX,
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
        self._fence = Fence()
        self._pipe = Pipe(client, self._fence.enter)
        self._reserver = Reserver(self._pipe, self._fence)
        self._known_terms: dict[tuple[str, str], _KnownTerms] = {}
        self._own_terms: WeakKeyDictionary[Terms, _KnownTerms] = WeakKeyDictionary()
        self._move = script("move")
        self._restore = script("restore")
        self._restate = script("restate")
        self._lift = script("lift")
        self._snapshot = script("snapshot")
        self._configure = script("configure")
        self._place = script("place")
        self._rank = script("rank")
        self._order = script("order")
        self._grant = script("grant")

    def wait(self) -> float:
        return max(self._pipe.waited() / 2, self._reserver.wait())

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
        above: int = 0,
    ) -> Configured:
        args: list[Any] = [campaign, revision, status, document, ends_at_ms, above]
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

    async def reserve(self, terms: Terms, digest: str, user: str) -> Moved:
        asking = _Asked()
        self._reserver.ask(terms, digest, user, asking)
        outcome, now_ms, packed = await asking.answer
        reservation_id = ReservationId(terms.campaign, digest)
        if packed is not None:
            return Moved(outcome, now_ms, await self._unpack(reservation_id, packed))
        if outcome is not Outcome.MOVED:
            return Moved(outcome, now_ms, None)
        known = self._know(terms)
        return Moved(outcome, now_ms, known.reservation(reservation_id, user, now_ms))

    def ask(self, terms: Terms, digest: str, user: str, asking: Asking) -> None:
        self._reserver.ask(terms, digest, user, asking)

    async def move(self, move: Move) -> Moved:
        keys = offer_keys(move.id.campaign, move.sku).for_move
        outcome, now_ms, packed, entry_id = await self._pipe.run(self._move, keys, move_arguments(move))
        if entry_id:
            self._fence.saw(campaign_keys(move.id.campaign).shard, entry_id)
        return Moved(Outcome(outcome.decode()), now_ms, await self._unpack(move.id, packed))

    async def restore(self, reservation_id: ReservationId, record: Record) -> Restored:
        keys = campaign_keys(reservation_id.campaign).for_restore
        args = [reservation_id.campaign, reservation_id.digest, record.pack()]
        outcome, counter = await self._pipe.run(self._restore, keys, args)
        return Restored(RestoreOutcome(outcome.decode()), counter.decode())

    async def restate(self, reservation_id: ReservationId, event: str) -> RestateOutcome:
        keys = campaign_keys(reservation_id.campaign).for_restate
        args = [reservation_id.campaign, reservation_id.digest, event]
        (outcome,) = await self._pipe.run(self._restate, keys, args)
        return RestateOutcome(outcome.decode())

    async def runs(self) -> list[Run]:
        found = await _all(
            self._pipe.call("HMGET", shard.run, "epoch", "run_id", "base", "began_at") for shard in ALL_SHARDS
        )
        return [read_run(*one) if one[0] else Run(0, "", 0, 0, 0) for one in found]

    async def fenced(self) -> str:
        found = await _all(self._pipe.call("GET", shard.fence) for shard in ALL_SHARDS)
        return next((reason.decode() for reason in found if reason), "")

    async def fence(self, reason: str) -> None:
        await _all(self._pipe.call(*command) for command in fence_commands(reason))

    async def lift(self) -> None:
        await _all(self._pipe.run(self._lift, shard.for_lift, []) for shard in ALL_SHARDS)

    async def reservation(self, reservation_id: ReservationId) -> Reservation | None:
        keys = campaign_keys(reservation_id.campaign)
        packed = await self._pipe.call("HGET", keys.reservations, reservation_id.digest)
        if packed is None and await self._pipe.call("EXISTS", keys.shard.fence):
            raise StoreUnavailable(f"the store is fenced, and may have lost {reservation_id}")
        return await self._unpack(reservation_id, packed)

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Reservation | None]:
        async with self._read() as pipeline:
            for one in ids:
                pipeline.hget(campaign_keys(one.campaign).reservations, one.digest)
            found = await pipeline.execute()
        return [await self._unpack(one, packed) for one, packed in zip(ids, found, strict=True)]

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        async with self._read() as pipeline:
            for shard in ALL_SHARDS:
                pipeline.hget(shard.users, user)
            found = await pipeline.execute()
        return [
            ReservationId(campaign, digest)
            for packed in found
            if packed
            for campaign, own in ormsgpack.unpackb(packed).items()
            for digest in own[0].split()
        ]

    async def standing(self, campaign: str, counters: Sequence[str]) -> Standing:
        keys = campaign_keys(campaign)
        users = sorted({_user_of(counter) for counter in counters} - {""})
        async with self._read(transaction=True) as pipeline:
            pipeline.hmget(keys.used, list(counters))
            pipeline.hmget(keys.caps, list(counters))
            pipeline.hgetall(keys.tally)
            for user in users:
                pipeline.hget(keys.shard.users, user)
            used, caps, tally, *packed = await pipeline.execute()
        own: dict[str, int] = {}
        for user, found in zip(users, packed, strict=True):
            own |= _own_counters(campaign, user, found)
        levels = (
            Level(int(n or own.get(name, 0)), int(cap or 0))
            for name, n, cap in zip(counters, used, caps, strict=True)
        )
        return Standing(tuple(levels), _counts(tally))

    async def due(self, limit: int) -> list[ReservationId]:
        now_ms = await self.now_ms()
        call = self._pipe.call
        # What is asked at once is one round trip.
        overdue, hold_times = await asyncio.gather(
            _all(
                call("ZRANGEBYSCORE", shard.deadlines, "-inf", now_ms, "LIMIT", 0, limit)
                for shard in ALL_SHARDS
            ),
            _all(call("SMEMBERS", shard.hold_times) for shard in ALL_SHARDS),
        )
        held = await _all(
            self._due_of_holds(shard, hold_ms, now_ms, limit)
            for shard, times in zip(ALL_SHARDS, hold_times, strict=True)
            for hold_ms in sorted(map(int, times))
        )
        return [_id(text) for ids in overdue for text in ids] + [one for due in held for one in due]

    async def _due_of_holds(
        self, shard: ShardKeys, hold_ms: int, now_ms: int, limit: int
    ) -> list[ReservationId]:
        """Those that nothing has happened to in all the time that they were held. Forgets the others."""
        stream, until = shard.holds(hold_ms), now_ms - hold_ms
        due: list[ReservationId] = []
        over: list[bytes] = []
        entries = await self._pipe.call("XRANGE", stream, "-", until, "COUNT", limit)
        for first in range(0, len(entries), _ENTRIES_AT_ONCE):
            some = entries[first : first + _ENTRIES_AT_ONCE]
            untouched = await _all(self._untouched(fields) for _, fields in some)
            for (entry_id, _), left in zip(some, untouched, strict=True):
                if not left:
                    over.append(entry_id)
                due += [one for one, created_at in left if created_at + hold_ms <= now_ms]
            if len(due) >= limit:
                break
        if over:
            await self._pipe.call("XDEL", stream, *over)
        return due[:limit]

    async def _untouched(self, fields: Sequence[bytes]) -> list[tuple[ReservationId, int]]:
        """Those of an entry of a stream of holds that nothing has happened to, and when they were made."""
        campaign, digests = fields[0].decode(), fields[1].decode().split()
        packed = await self._pipe.call("HMGET", campaign_keys(campaign).reservations, *digests)
        records = [(digest, unpack_record(one)) for digest, one in zip(digests, packed, strict=True) if one]
        return [
            (ReservationId(campaign, digest), record.created_at)
            for digest, record in records
            if isinstance(record, ShortRecord)
        ]

    async def snapshot(self, campaign: str) -> Snapshot | None:
        keys = campaign_keys(campaign).for_snapshot
        # On a connection of its own: with millions of reservations it takes longer than others may wait.
        async with self._read() as pipeline:
            pipeline.eval(self._snapshot.source, len(keys), *keys)
            (found,) = await pipeline.execute()
        if not found:
            return None
        used, caps, tally, reservations, terms, users, events, ranking = found
        for name, packed in _pairs(terms):
            self._known_terms[campaign, name.decode()] = _KnownTerms(MadeOn.unpack(packed))
        levels = _counts(dict(_pairs(used)))
        levels |= {f"{RANKED}{user.decode()}": int(float(score)) for user, score in _pairs(ranking)}
        for user, packed in _pairs(users):
            levels |= _own_counters(campaign, user.decode(), packed)
        return Snapshot(
            levels,
            _counts(dict(_pairs(caps))),
            _counts(dict(_pairs(tally))),
            await self._unpack_all(campaign, _pairs(reservations)),
            frozenset(one for _, fields in events for one in ids_of_entry(dict(_pairs(fields)))),
        )

    async def scan(self, campaign: str, cursor: int) -> tuple[int, list[Reservation]]:
        keys = campaign_keys(campaign)
        next_cursor, some = await self._pipe.call("HSCAN", keys.reservations, cursor, "COUNT", _SCAN_COUNT)
        return int(next_cursor), await self._unpack_all(campaign, _pairs(some))

    async def take_place(self, terms: Terms, user: str, details: bytes) -> Placed:
        keys = offer_keys(terms.campaign, terms.sku).for_place
        args = place_arguments(terms, user, details)
        outcome, now_ms, position = await self._pipe.run(self._place, keys, args)
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
        self,
        order_id: str,
        version: int,
        body: bytes,
        *,
        unfinished: bool | None,
        event: bool,
        above: int = 0,
    ) -> bool:
        mark = "" if unfinished is None else int(unfinished)
        args = [order_id, version, body, mark, int(event), ORDER_KEPT_MS, above]
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

    async def _unpack(self, reservation_id: ReservationId, packed: bytes | None) -> Reservation | None:
        if not packed:
            return None
        record = unpack_record(packed)
        if isinstance(record, Record):
            return Reservation.of(reservation_id, record)
        known = await self._terms(reservation_id.campaign, record.terms)
        return known.reservation(reservation_id, record.user, record.created_at)

    async def _unpack_all(self, campaign: str, packed: Iterable[tuple[bytes, bytes]]) -> list[Reservation]:
        """From digest, packed record."""
        found = [
            await self._unpack(ReservationId(campaign, digest.decode()), record) for digest, record in packed
        ]
        return [one for one in found if one is not None]

    async def _terms(self, campaign: str, name: str) -> _KnownTerms:
        """The terms that a campaign keeps under this name. They never change."""
        known = self._known_terms.get((campaign, name))
        if known is None:
            packed = await self._pipe.call("HGET", campaign_keys(campaign).terms, name)
            if len(self._known_terms) >= _KNOWN_TERMS_MAX:
                self._known_terms.clear()
            known = self._known_terms[campaign, name] = _KnownTerms(MadeOn.unpack(packed))
        return known

    def _know(self, terms: Terms) -> _KnownTerms:
        known = self._own_terms.get(terms)
        if known is None:
            known = self._own_terms[terms] = _KnownTerms(made_on(terms))
        return known


class _KnownTerms:
    """Terms that reservations were made on."""

    def __init__(self, made_on: MadeOn) -> None:
        self._made_on = made_on
        self._facts = Facts.unpack(made_on.facts)

    def reservation(self, reservation_id: ReservationId, user: str, created_at_ms: int) -> Reservation:
        """One that nothing has happened to since it was made."""
        return Reservation.of(reservation_id, self._made_on.record(user, created_at_ms), self._facts)


class _Asked:
    """Who waits for the answer to an asking."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[tuple[Outcome, int, bytes | None]] = loop.create_future()

    def answered(self, outcome: Outcome, now_ms: int, record: bytes | None) -> None:
        if not self.answer.done():  # its request was cancelled meanwhile
            self.answer.set_result((outcome, now_ms, record))

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


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


async def _all(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    return await asyncio.gather(*asked)


def _user_of(counter: str) -> str:
    """Whose own this counter is; nobody's if it is shared or ranked."""
    name, at, user = counter.partition("@")
    return user if at and not name.startswith("#") else ""


def _own_counters(campaign: str, user: str, packed: bytes | None) -> dict[str, int]:
    """A user's own counters in this campaign, from what the shard keeps of them."""
    own = ormsgpack.unpackb(packed).get(campaign, ()) if packed else ()
    return {f"{name}{user}": n for name, n in zip(own[1::2], own[2::2], strict=True)}


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
        *gate_arguments(move.revision, move.gate),
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
        *claim_arguments(move.claims),
    ]


def place_arguments(terms: Terms, user: str, details: bytes) -> list[Any]:
    """ARGV of place.lua."""
    return [
        terms.campaign,
        *gate_arguments(terms.revision, terms.gate, terms.first_refusal, terms.last_refusal),
        terms.sku,
        user,
        terms.quantity,
        details,
        terms.queued,
        *claim_arguments(terms.claims),
    ]
