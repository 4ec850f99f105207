"""The store on Redis: scripts that change it, and reads. reserver.py makes new reservations, in groups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import ormsgpack
from redis.asyncio import Redis

from reservation import attempt, tracing
from reservation.acknowledged import Acknowledged
from reservation.fence import Fence, Run, fence_command, read_run
from reservation.ids import ReservationId
from reservation.kernel import (
    Asking,
    Changes,
    Configured,
    Level,
    Miscount,
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
from reservation.keys import ALL_ORDERS, ALL_SHARDS, ShardKeys, campaign_keys, offer_keys, order_keys
from reservation.main_order import KEPT_MS
from reservation.observer import NOBODY, Observer
from reservation.outcomes import (
    AdjustOutcome,
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
from reservation.pipes import Pipes, together
from reservation.record import (
    KnownTerms,
    MadeOn,
    Record,
    Reservation,
    ShortRecord,
    own_counters,
    unpack_record,
)
from reservation.replicas import NO_REPLICAS, Replicas
from reservation.reserver import Reserver, claim_arguments, gate_arguments, made_on
from reservation.scripts import Script, script
from reservation.servers import Servers
from reservation.servers import connect_redis as connect_redis
from reservation.snapshot import opened, read_pages
from reservation.tracing import MADE, NO_TRACER, OUTCOME, Tracer, script_run, span_id_of

_SCAN_COUNT = 500
_ENTRIES_AT_ONCE = 64
_KNOWN_TERMS_MAX = 10_000
_ADJUSTED_AT_ONCE = 500


def _ms(time: Sequence[Any]) -> int:
    return int(time[0]) * 1000 + int(time[1]) // 1000


def _counts(found: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in found.items()}


class RedisStore:
    """Live state in Redis; see kernel.Store for what it promises."""

    def __init__(
        self,
        servers: Servers,
        *,
        replicas: Replicas = NO_REPLICAS,
        observer: Observer = NOBODY,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """`replicas` must have what is changed before that is answered."""
        self._tracer = tracer
        self._replicas = replicas
        self._fence = Fence()
        self._pipes = Pipes(servers, self._fence.enter, replicas=replicas, observer=observer)
        self._reserver = Reserver(self._pipes, self._fence, tracer)
        self._known_terms: dict[tuple[str, str], KnownTerms] = {}
        self._own_terms: WeakKeyDictionary[Terms, KnownTerms] = WeakKeyDictionary()
        self._move = script("move")
        self._restore = script("restore")
        self._restate = script("restate")
        self._lift = script("lift")
        self._adjust = script("adjust")
        self._configure = script("configure")
        self._place = script("place")
        self._rank = script("rank")
        self._order = script("order")
        self._grant = script("grant")

    def wait(self) -> float:
        return max(self._reserver.wait(), *(pipe.waited() / 2 for pipe in self._pipes.all))

    async def now_ms(self) -> int:
        return _ms(await self._ask(ALL_SHARDS[0], "TIME"))

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
        keys = campaign_keys(campaign)
        outcome, now_ms, current, counter, entry_id = await self._run(
            self._configure, keys.shard, keys.for_configure, args
        )
        if entry_id:
            self._fence.saw(keys.shard, entry_id)
        return Configured(ConfigureOutcome(outcome.decode()), now_ms, current, counter.decode())

    async def campaign(self, campaign: str) -> StoredCampaign | None:
        keys = campaign_keys(campaign)
        revision, status, document, changed_at = await self._ask(
            keys.shard, "HMGET", keys.campaign, "revision", "status", "document", "changed_at"
        )
        if revision is None:
            return None
        return StoredCampaign(campaign, int(revision), status.decode(), document, int(changed_at))

    async def changes(self, cursor: tuple[int, ...]) -> Changes:
        seen = cursor or (0,) * len(ALL_SHARDS)
        now_ms, found, names = await asyncio.gather(
            self.now_ms(),
            self._pipes.each(lambda shard: ("GET", shard.changes)),
            self._pipes.each(
                lambda shard: ("ZRANGEBYSCORE", shard.campaigns, f"({seen[shard.number]}", "+inf")
            ),
        )
        numbers = tuple(int(number or 0) for number in found)
        changed = [name.decode() for of_shard in names for name in of_shard]
        if any(number < last for number, last in zip(numbers, seen, strict=True)):
            # The store is not the one we knew: it was emptied, or an older copy came back.
            return await self.changes((0,) * len(ALL_SHARDS))
        return Changes(now_ms, tuple(changed), numbers)

    async def reserve(self, terms: Terms, digest: str, user: str) -> Moved:
        reservation_id = ReservationId(terms.campaign, digest)
        asking = _Asked(_asking_span(reservation_id) if digest < self._tracer.below else 0)
        self._reserver.ask(terms, digest, user, asking)
        try:
            outcome, now_ms, packed = await asking.answer
        except StoreUnavailable as fault:
            _note(fault)
            raise
        _note_made(outcome)
        if packed is not None:
            return Moved(outcome, now_ms, await self._unpack(reservation_id, packed))
        if outcome is not Outcome.MOVED:
            return Moved(outcome, now_ms, None)
        known = self._know(terms)
        return Moved(outcome, now_ms, known.reservation(reservation_id, user, now_ms))

    def ask(self, terms: Terms, digest: str, user: str, asking: Asking) -> None:
        self._reserver.ask(terms, digest, user, asking)

    async def move(self, move: Move) -> Moved:
        keys, started_ns = offer_keys(move.id.campaign, move.sku), time.time_ns()
        outcome, now_ms, packed, entry_id = await self._run(
            self._move, keys.shard, keys.for_move, move_arguments(move)
        )
        if entry_id:
            version = move.version + 1
            self._fence.was_acknowledged(keys.shard, entry_id, move.id.campaign, [move.id.digest], version)
        if move.id.digest < self._tracer.below:
            self._tracer.tell(_move_span(move, outcome.decode(), started_ns))
        return Moved(Outcome(outcome.decode()), now_ms, await self._unpack(move.id, packed))

    async def restore(self, reservation_id: ReservationId, record: Record) -> Restored:
        keys = campaign_keys(reservation_id.campaign)
        args = [reservation_id.campaign, reservation_id.digest, record.pack()]
        outcome, counter = await self._run(self._restore, keys.shard, keys.for_restore, args)
        return Restored(RestoreOutcome(outcome.decode()), counter.decode())

    async def restate(self, reservation_id: ReservationId, event: str) -> RestateOutcome:
        keys = campaign_keys(reservation_id.campaign)
        args = [reservation_id.campaign, reservation_id.digest, event]
        (outcome,) = await self._run(self._restate, keys.shard, keys.for_restate, args)
        return RestateOutcome(outcome.decode())

    async def adjust(self, campaign: str, adjusted: int, miscounts: Sequence[Miscount]) -> AdjustOutcome:
        keys, outcome = campaign_keys(campaign), AdjustOutcome.ADJUSTED
        for first in range(0, len(miscounts), _ADJUSTED_AT_ONCE):
            args: list[Any] = [campaign, adjusted]
            for one in miscounts[first : first + _ADJUSTED_AT_ONCE]:
                args += (*_named(one), one.lacks)
            (found,) = await self._run(self._adjust, keys.shard, keys.for_adjust, args)
            outcome = AdjustOutcome(found.decode())
            if outcome is not AdjustOutcome.ADJUSTED:
                break
            adjusted += 1
        return outcome

    async def confirm(self, campaign: str) -> None:
        if self._replicas.count:
            await self._pipes.of(campaign_keys(campaign).shard).confirm(self._replicas)

    async def confirm_order(self, order_id: str) -> None:
        if self._replicas.count:
            await self._pipes.of(order_keys(order_id).shard).confirm(self._replicas)

    async def runs(self) -> list[Run]:
        found = await self._pipes.each(
            lambda shard: ("HMGET", shard.run, "epoch", "run_id", "base", "began_at")
        )
        return [read_run(*one) if one[0] else Run(0, "", 0, 0, 0) for one in found]

    async def fenced(self) -> str:
        found = await self._pipes.each(lambda shard: ("GET", shard.fence))
        return next((reason.decode() for reason in found if reason), "")

    async def fence(self, reason: str) -> None:
        await self._pipes.each(lambda shard: fence_command(shard, reason))

    async def missed(self) -> list[Acknowledged]:
        found = (Acknowledged.parse(one) for one in await self._members(lambda shard: shard.missed))
        return [one for one in found if one is not None]

    async def lift(self) -> None:
        await together(self._pipes.of(shard).run(self._lift, shard.for_lift, []) for shard in ALL_SHARDS)

    async def reservation(self, reservation_id: ReservationId) -> Reservation | None:
        keys = campaign_keys(reservation_id.campaign)
        packed = await self._ask(keys.shard, "HGET", keys.reservations, reservation_id.digest)
        if packed is None and await self._ask(keys.shard, "EXISTS", keys.shard.fence):
            raise StoreUnavailable(f"the store is fenced, and may have lost {reservation_id}")
        return await self._unpack(reservation_id, packed)

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Reservation | None]:
        digests: dict[str, list[str]] = {}
        for one in ids:
            digests.setdefault(one.campaign, []).append(one.digest)
        packed = await together(self._packed(*each) for each in digests.items())
        found = {one: record for some in packed for one, record in some}
        return [await self._unpack(one, found[one]) for one in ids]

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        found, fenced = await asyncio.gather(
            self._pipes.each(lambda shard: ("HGET", shard.users, user)), self.fenced()
        )
        if fenced:
            raise StoreUnavailable(f"the store is fenced, and may have lost some of {user}'s")
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

        async def read(client: Redis) -> list[Any]:
            async with client.pipeline(transaction=True) as pipeline:
                pipeline.hmget(keys.used, list(counters))
                pipeline.hmget(keys.caps, list(counters))
                pipeline.hgetall(keys.tally)
                pipeline.exists(keys.campaign)
                for user in users:
                    pipeline.hget(keys.shard.users, user)
                return list(await pipeline.execute())

        answer = await self._pipes.apart(keys.shard, read, name="standing", reads=True)
        used, caps, tally, known, *packed = answer
        own: dict[str, int] = {}
        for user, found in zip(users, packed, strict=True):
            own |= own_counters(campaign, user, found)
        levels = (
            Level(int(n or own.get(name, 0)), int(cap or 0))
            for name, n, cap in zip(counters, used, caps, strict=True)
        )
        return Standing(tuple(levels), _counts(tally), bool(known))

    async def due(self, limit: int) -> list[ReservationId]:
        now_ms = await self.now_ms()
        overdue, hold_times = await asyncio.gather(
            self._pipes.each(
                lambda shard: ("ZRANGEBYSCORE", shard.deadlines, "-inf", now_ms, "LIMIT", 0, limit)
            ),
            self._pipes.each(lambda shard: ("SMEMBERS", shard.hold_times)),
        )
        held = await together(
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
        entries = await self._ask(shard, "XRANGE", stream, "-", until, "COUNT", limit)
        for first in range(0, len(entries), _ENTRIES_AT_ONCE):
            some = entries[first : first + _ENTRIES_AT_ONCE]
            untouched = await together(self._untouched(fields) for _, fields in some)
            for (entry_id, _), left in zip(some, untouched, strict=True):
                if not left:
                    over.append(entry_id)
                due += [one for one, created_at in left if created_at + hold_ms <= now_ms]
            if len(due) >= limit:
                break
        if over:
            await self._ask(shard, "XDEL", stream, *over)
        return due[:limit]

    async def _untouched(self, fields: Sequence[bytes]) -> list[tuple[ReservationId, int]]:
        """Those of an entry of a stream of holds that nothing has happened to, and when they were made. What
        nobody can read is among them: whoever ends what is due says so of it, and not of all others."""
        campaign, digests = fields[0].decode(), fields[1].decode().split()
        keys = campaign_keys(campaign)
        packed = await self._ask(keys.shard, "HMGET", keys.reservations, *digests)
        made_at = [(digest, _made_at(one)) for digest, one in zip(digests, packed, strict=True) if one]
        return [(ReservationId(campaign, digest), at) for digest, at in made_at if at is not None]

    async def snapshot(self, campaign: str) -> Snapshot | None:
        keys = campaign_keys(campaign)
        # On a connection of its own: it is many pages, and nobody else is to wait for them.
        pages = await self._pipes.apart(
            keys.shard, lambda client: read_pages(client, campaign, keys), name="snapshot", reads=True
        )
        if pages is None:
            return None
        # In a thread: a million reservations take seconds, and others are to be served.
        return await asyncio.to_thread(opened, pages)

    async def scan(self, campaign: str, cursor: int) -> tuple[int, list[Reservation]]:
        keys = campaign_keys(campaign)
        scan = ("HSCAN", keys.reservations, cursor, "COUNT", _SCAN_COUNT)
        next_cursor, some = await self._ask(keys.shard, *scan)
        ids = [(ReservationId(campaign, digest.decode()), packed) for digest, packed in _pairs(some)]
        found = [await self._unpack(*one) for one in ids]
        return int(next_cursor), [one for one in found if one is not None]

    async def take_place(self, terms: Terms, user: str, details: bytes) -> Placed:
        keys = offer_keys(terms.campaign, terms.sku)
        args = place_arguments(terms, user, details)
        outcome, now_ms, position = await self._run(self._place, keys.shard, keys.for_place, args)
        found = outcome.decode()
        return Placed(PlaceOutcome(found) if found in set(PlaceOutcome) else Outcome(found), now_ms, position)

    async def leave_place(self, campaign: str, sku: str, user: str) -> bool:
        args = [campaign, 0, 0, "", 0, "", "", "", sku, user, 0, "", ""]
        keys = offer_keys(campaign, sku)
        outcome, *_ = await self._run(self._place, keys.shard, keys.for_place, args)
        return PlaceOutcome(outcome.decode()) is PlaceOutcome.LEFT

    async def places(self, campaign: str, user: str, skus: Sequence[str]) -> dict[str, tuple[int, Place]]:
        keys = campaign_keys(campaign)
        packed = await self._ask(keys.shard, "HMGET", keys.places, *(f"{sku}/{user}" for sku in skus))
        found = {sku: _place(user, one) for sku, one in zip(skus, packed, strict=True) if one is not None}
        if not found and await self._ask(keys.shard, "EXISTS", keys.shard.fence):
            raise StoreUnavailable(f"the store is fenced, and may have lost the line for {campaign}")
        ranks = await together(
            self._ask(keys.shard, "ZRANK", offer_keys(campaign, sku).queue, user) for sku in found
        )
        there = zip(found.items(), ranks, strict=True)
        return {sku: (int(rank) + 1, place) for (sku, place), rank in there if rank is not None}

    async def queues(self) -> list[tuple[str, str]]:
        names = await self._members(lambda shard: shard.queues)
        return [(campaign, sku) for campaign, _, sku in (name.partition("/") for name in names)]

    async def queue(self, campaign: str, sku: str, limit: int) -> list[Place]:
        keys = offer_keys(campaign, sku)
        users = [user.decode() for user in await self._ask(keys.shard, "ZRANGE", keys.queue, 0, limit - 1)]
        if not users:
            return []
        packed = await self._ask(keys.shard, "HMGET", keys.places, *(f"{sku}/{user}" for user in users))
        return [_place(user, one) for user, one in zip(users, packed, strict=True) if one is not None]

    async def ranking(self, campaign: str, user: str | None, limit: int) -> Ranking:
        keys = campaign_keys(campaign)
        outcome, now_ms, flat, own, above = await self._run(
            self._rank, keys.shard, keys.for_rank, [limit, user or ""]
        )
        entries = tuple((name.decode(), int(float(score))) for name, score in _pairs(flat))
        final = RankOutcome(outcome.decode()) is RankOutcome.FINAL
        return Ranking(final, now_ms, entries, int(float(own)) if own else None, above)

    async def order(self, order_id: str) -> StoredOrder | None:
        keys = order_keys(order_id)
        version, body = await self._ask(keys.shard, "HMGET", keys.order, "version", "body")
        return None if version is None else StoredOrder(int(version), body)

    async def order_ids(self) -> AsyncIterator[list[str]]:
        for pipe in self._pipes.all:
            cursor = 0
            while True:
                found, keys = await pipe.call("SCAN", cursor, "MATCH", ALL_ORDERS, "COUNT", _SCAN_COUNT)
                yield [key.decode().partition("/")[2] for key in keys]
                cursor = int(found)
                if cursor == 0:
                    break

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
        args = [order_id, version, body, mark, int(event), KEPT_MS, above]
        keys = order_keys(order_id)
        answer, _, _, entry_id = await self._run(self._order, keys.shard, keys.for_order, args)
        outcome = OrderOutcome(answer.decode())
        if outcome is OrderOutcome.STORE_UNAVAILABLE:
            raise StoreUnavailable("the store is fenced")
        if entry_id:
            self._fence.saw(keys.shard, entry_id)
        return outcome is OrderOutcome.RECORDED

    async def unfinished_orders(self) -> list[str]:
        return await self._members(lambda shard: shard.unfinished)

    async def grant(
        self, campaign: str, revision: int, order_id: str, version: int, caps: Mapping[str, int]
    ) -> GrantOutcome:
        args: list[Any] = [revision, order_id, version]
        for counter, cap in caps.items():
            args += (counter, cap)
        keys = campaign_keys(campaign)
        outcome, _ = await self._run(self._grant, keys.shard, keys.for_grant, args)
        return GrantOutcome(outcome.decode())

    async def _members(self, key: Callable[[ShardKeys], str]) -> list[str]:
        """What is in these sets of all shards, sorted."""
        found = await self._pipes.each(lambda shard: ("SMEMBERS", key(shard)))
        return sorted(name.decode() for members in found for name in members)

    async def _packed(
        self, campaign: str, digests: Sequence[str]
    ) -> list[tuple[ReservationId, bytes | None]]:
        """Reservations of one campaign, as they are kept."""
        keys = campaign_keys(campaign)
        packed = await self._ask(keys.shard, "HMGET", keys.reservations, *digests)
        ids = (ReservationId(campaign, digest) for digest in digests)
        return list(zip(ids, packed, strict=True))

    def _ask(self, shard: ShardKeys, *command: Any) -> Awaitable[Any]:
        """One command's reply."""
        return self._pipes.of(shard).call(*command)

    async def _run(self, script: Script, shard: ShardKeys, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One script's reply."""
        try:
            reply = await self._pipes.of(shard).run(script, keys, args)
        except StoreUnavailable as fault:
            _note(fault)
            raise
        _note_made(reply[0].decode())
        return reply

    async def _unpack(self, reservation_id: ReservationId, packed: bytes | None) -> Reservation | None:
        if not packed:
            return None
        record = unpack_record(packed)
        if isinstance(record, Record):
            return Reservation.of(reservation_id, record)
        known = await self._terms(reservation_id.campaign, record.terms)
        return known.reservation(reservation_id, record.user, record.created_at)

    async def _terms(self, campaign: str, name: str) -> KnownTerms:
        """The terms that a campaign keeps under this name. They never change."""
        known = self._known_terms.get((campaign, name))
        if known is None:
            keys = campaign_keys(campaign)
            packed = await self._ask(keys.shard, "HGET", keys.terms, name)
            if len(self._known_terms) >= _KNOWN_TERMS_MAX:
                self._known_terms.clear()
            known = self._known_terms[campaign, name] = KnownTerms(MadeOn.unpack(packed))
        return known

    def _know(self, terms: Terms) -> KnownTerms:
        known = self._own_terms.get(terms)
        if known is None:
            known = self._own_terms[terms] = KnownTerms(made_on(terms))
        return known


class _Asked:
    """Who waits for the answer to an asking."""

    def __init__(self, span_id: int) -> None:
        self.span_id = span_id
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[tuple[Outcome, int, bytes | None]] = loop.create_future()

    def answered(self, outcome: Outcome, now_ms: int, record: bytes | None) -> None:
        if not self.answer.done():  # its request was cancelled meanwhile
            self.answer.set_result((outcome, now_ms, record))

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


_MADE = frozenset(
    {
        Outcome.MOVED,
        Outcome.REPLAYED,
        ConfigureOutcome.CONFIGURED,
        RestoreOutcome.RESTORED,
        RestateOutcome.RESTATED,
        PlaceOutcome.PLACED,
        PlaceOutcome.LEFT,
        GrantOutcome.GRANTED,
        OrderOutcome.RECORDED,
    }
)
"""Where the store is not as it was without this request. After all others, nothing was changed."""


def _asking_span(reservation_id: ReservationId) -> int:
    """The span of the operation that a script is run for; 0 where it is about something else, or none."""
    operation = tracing.current()
    return operation.span_id if operation is not None and operation.reservation == reservation_id else 0


def _move_span(move: Move, outcome: str, started_ns: int) -> tracing.Span:
    made = move.version + 1 if outcome == Outcome.MOVED else 0
    parent_id = _asking_span(move.id) or span_id_of(move.id, MADE)
    attributes: dict[str, str | int | float] = {OUTCOME: outcome, "doorbuster.event": move.event}
    if made:
        attributes["doorbuster.version"] = made
    return script_run("move.lua", move.id, made, started_ns, parent_id, attributes)


def _note_made(outcome: str) -> None:
    if outcome in _MADE:
        attempt.changed()


def _note(fault: StoreUnavailable) -> None:
    if fault.sent:
        attempt.changed()


def _made_at(packed: bytes) -> int | None:
    """When it was made, ms, if nothing has happened to it since; 0 where nobody can read it."""
    try:
        record = unpack_record(packed)
    except (LookupError, TypeError, ValueError):  # of another version's making
        return 0
    return record.created_at if isinstance(record, ShortRecord) else None


def _user_of(counter: str) -> str:
    """Whose own this counter is; nobody's if it is shared or ranked."""
    name, at, user = counter.partition("@")
    return user if at and not name.startswith("#") else ""


def _named(one: Miscount) -> tuple[str, str, str]:
    """Kind, name and user of a counter, as adjust.lua takes them."""
    name, at, user = one.counter.partition("@")
    if one.tallied or not at:
        return "tally" if one.tallied else "used", one.counter, ""
    return "ranked" if name.startswith("#") else "own", f"{name}@", user


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
