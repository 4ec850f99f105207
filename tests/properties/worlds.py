"""Two complete worlds: one on the model, one on the scripts in Redis. They must never differ."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import orjson
import ormsgpack
import pytest
from redis.asyncio import Redis

from reservation import waitlist
from reservation.administration import Administration
from reservation.campaign import Campaign
from reservation.catalog import Catalog
from reservation.desk import Desk
from reservation.ids import ReservationId
from reservation.kernel import Move, Moved, Place, Placed, Store, StoredCampaign, StoredOrder, Terms
from reservation.keys import ALL_SHARDS, campaign_keys, offer_keys, order_keys, shard_of
from reservation.model import ModelStore
from reservation.order_desk import OrderDesk
from reservation.outcomes import Outcome
from reservation.record import MadeOn, Record, Reservation, ShortRecord, unpack_record
from reservation.redis_store import RedisStore
from reservation.reserver import terms_name
from reservation.validation import Invalid
from reservation.waitlist import Waitlist
from tests.properties.clock import FrozenClock
from tests.properties.reached import REACHED

USERS = ("ann", "bob", "käthe", "dan")
TIERS = {"ann": "gold", "bob": "silver", "käthe": None, "dan": "gold"}
SKUS = ("phone", "case")
ORDERS = {f"order-{number}": user for number, user in enumerate((*USERS, *USERS), 1)}
CALLS_MAX = 2_000
"""Of a store, for one act."""


class Event(NamedTuple):
    """An event as it lies in the outbox."""

    type: str
    id: str
    reservation: Reservation | None
    data: bytes


@dataclass
class SeenCampaign:
    """Everything that a store keeps of a campaign."""

    stored: StoredCampaign | None
    used: dict[str, int]
    caps: dict[str, int]
    tally: dict[str, int]
    reservations: dict[str, Reservation]
    queues: dict[str, list[Place]]
    final: dict[str, int] | None

    def available(self, sku: str) -> int:
        return self.caps.get(f"stock/{sku}", 0) - self.used.get(f"stock/{sku}", 0)

    @property
    def document(self) -> dict[str, Any]:
        assert self.stored is not None
        return cast(dict[str, Any], orjson.loads(self.stored.document))


@dataclass
class Seen:
    """Everything that a store keeps, at one instant."""

    now_ms: int
    campaigns: dict[str, SeenCampaign]
    deadlines: dict[str, int]
    ids_of: dict[str, dict[str, list[str]]]
    """By user and campaign: the digests of their newest reservations, newest first."""
    orders: dict[str, StoredOrder | None]
    unfinished: set[str]
    events: dict[int, list[Event]] = field(default_factory=dict)
    """By shard: those that are new since the last look."""
    made: list[str] = field(default_factory=list)
    """Reservations, in the order in which they were made."""

    @property
    def reservations(self) -> list[Reservation]:
        """Of all campaigns, oldest first."""
        found = {str(one.id): one for seen in self.campaigns.values() for one in seen.reservations.values()}
        return [found[name] for name in self.made]

    @property
    def all_events(self) -> list[Event]:
        return [event for events in self.events.values() for event in events]


@dataclass
class Sent:
    """What was asked of the store, and what it answered."""

    again: Callable[[], Awaitable[Moved]]
    outcome: Outcome | None = None


class WatchedStore:
    """A store that notes what became of each move, and lets something else come in before the next write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.interruption: Callable[[], Awaitable[None]] | None = None
        self.sent: list[Sent] = []
        self.calls = 0
        """Since the last act began."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        async def call(*given: Any, **named: Any) -> Any:
            await self._called(writes=name in ("configure", "record_order", "grant"))
            return await found(*given, **named)

        return call

    async def move(self, move: Move) -> Moved:
        await self._called(writes=True)
        sent = self._sending(lambda: self.move(move))
        moved = await self._store.move(move)
        REACHED.note(f"move: {moved.outcome}")
        sent.outcome = moved.outcome
        return moved

    async def reserve(self, terms: Terms, digest: str, user: str) -> Moved:
        await self._called(writes=True)
        sent = self._sending(lambda: self.reserve(terms, digest, user))
        moved = await self._store.reserve(terms, digest, user)
        REACHED.note(f"reserve: {moved.outcome}")
        sent.outcome = moved.outcome
        return moved

    async def take_place(self, terms: Terms, user: str, details: bytes) -> Placed:
        await self._called(writes=True)
        placed = await self._store.take_place(terms, user, details)
        REACHED.note(f"place: {placed.outcome}")
        return placed

    def _sending(self, again: Callable[[], Awaitable[Moved]]) -> Sent:
        """In the order in which they are asked: of a crowd, each world answers in an order of its own."""
        self.sent.append(Sent(again))
        return self.sent[-1]

    async def _called(self, *, writes: bool) -> None:
        self.calls += 1
        assert self.calls < CALLS_MAX, "it goes round in circles"
        if writes and self.interruption is not None:
            interruption, self.interruption = self.interruption, None
            REACHED.note("something came in between")
            await interruption()


class Crashable(OrderDesk):
    """May die between writing an order down and telling the campaigns."""

    dies = False

    async def finish(self, order_id: str) -> None:
        if not self.dies:
            await super().finish(order_id)


class _NothingRemembered:
    async def remembers(self, campaign: str) -> bool:
        return False


class World:
    """A store and all that works on it: a gateway with the catalog it knows, and another process' office."""

    def __init__(self, store: Store, clock: FrozenClock) -> None:
        self.clock = clock
        self.watched = WatchedStore(store)
        self.store = cast(Store, self.watched)
        self.catalog = Catalog(self.store, clock)
        self.desk = Desk(self.store, self.catalog, clock)
        self.waitlist = Waitlist(self.store, self.catalog, clock, self.desk)
        self.orders = Crashable(self.store, self.catalog, self.desk)
        self._office_catalog = Catalog(self.store, clock)
        self._ids_made = 0
        self.crowded = False
        """Whether a crowd has come since the last look."""
        self.spare_terms: dict[Terms, Terms] = {}
        """By the usual ones: those that offer a spare as well."""

    async def take(self, act: Callable[[World], Awaitable[object]]) -> object:
        """What came of one act, in a form that can be compared."""
        try:
            result = await act(self)
        except Invalid as invalid:
            return ("invalid", str(invalid))
        if isinstance(result, tuple):
            return tuple(_comparable(one) for one in result)
        return _comparable(result)

    async def crowd(self, acts: Sequence[Callable[[World], Awaitable[object]]]) -> tuple[object, ...]:
        """What came of each of these acts, which come at once."""
        self.crowded = True
        before = len(self.watched.sent)
        results = await self._at_once(acts)
        # Who knows an old campaign asks twice: all of a crowd, or the first of those that come in turn.
        sent = self.watched.sent[before:]
        self.watched.sent[before:] = [one for one in sent if one.outcome is not Outcome.STALE]
        return tuple(results)

    async def _at_once(self, acts: Sequence[Callable[[World], Awaitable[object]]]) -> list[object]:
        raise NotImplementedError

    @property
    def office(self) -> Administration:
        """A new one each time, since each waits for its own changes only: others may come in between."""
        return Administration(self.store, self._office_catalog, _NothingRemembered())

    def next_id(self) -> SimpleNamespace:
        """Instead of uuid4, which no two worlds would agree on."""
        self._ids_made += 1
        return SimpleNamespace(hex=f"served-{self._ids_made}")

    async def look(self, campaigns: list[str]) -> Seen:
        raise NotImplementedError


def _comparable(result: object) -> object:
    if isinstance(result, Campaign):
        return (result.id, result.revision, result.status, result.document, result.changed_at_ms)
    return result


class ModelWorld(World):
    """On the model."""

    def __init__(self) -> None:
        clock = FrozenClock()
        self.model = ModelStore(clock.now_ms)
        super().__init__(self.model, clock)
        self._events_seen = 0

    async def _at_once(self, acts: Sequence[Callable[[World], Awaitable[object]]]) -> list[object]:
        # One after the other: this is what the store promises of those who come at once.
        return [await self.take(act) for act in acts]

    async def look(self, campaigns: list[str]) -> Seen:
        model = self.model
        events: dict[int, list[Event]] = {}
        for event in model.outbox[self._events_seen :]:
            shard = shard_of(event.id.partition(".")[0])
            events.setdefault(shard, []).append(Event(*event))
        self._events_seen = len(model.outbox)
        ids_of: dict[str, dict[str, list[str]]] = defaultdict(dict)
        for (user, campaign), ids in model._index.items():
            ids_of[user][campaign] = [one.digest for one in ids]
        return Seen(
            self.clock.ms,
            {name: await self._campaign(name) for name in campaigns},
            {str(one): at for one, at in model._deadlines.items()},
            dict(ids_of),
            {name: model._orders.get(name) for name in ORDERS},
            set(model._unfinished),
            events,
        )

    async def _campaign(self, name: str) -> SeenCampaign:
        found, snapshot = self.model._campaigns.get(name), await self.model.snapshot(name)
        if found is None or snapshot is None:
            return SeenCampaign(None, {}, {}, {}, {}, {}, None)
        return SeenCampaign(
            await self.model.campaign(name),
            dict(snapshot.used),
            dict(snapshot.caps),
            dict(snapshot.tally),
            {one.id.digest: one for one in snapshot.reservations},
            {sku: list(found.queues.get(sku, ())) for sku in SKUS},
            dict(found.final[1]) if found.final else None,
        )


class RedisWorld(World):
    """On Redis."""

    def __init__(self, client: Redis, clock: FrozenClock) -> None:
        self.client = client
        super().__init__(RedisStore(client), clock)
        self._last_event = dict.fromkeys(range(len(ALL_SHARDS)), "0-0")
        self._events = Counter[int]()
        """By shard: how many have been seen. Nobody takes any out."""

    async def _at_once(self, acts: Sequence[Callable[[World], Awaitable[object]]]) -> list[object]:
        return await asyncio.gather(*(self.take(act) for act in acts))

    async def look(self, campaigns: list[str]) -> Seen:
        shards = sorted({shard_of(name) for name in (*campaigns, *ORDERS)})
        streams = sorted(key.decode() for key in await self.client.keys("*:holds:*"))
        commands: list[tuple[str, ...]] = [("TIME",)]
        commands += [("HMGET", order_keys(order).order, "version", "body") for order in ORDERS]
        commands += [("XRANGE", stream, "-", "+") for stream in streams]
        for shard in shards:
            shared = ALL_SHARDS[shard]
            commands.append(("ZRANGE", shared.deadlines, "0", "-1", "WITHSCORES"))
            commands.append(("SMEMBERS", shared.hold_times))
            commands.append(("HGETALL", shared.users))
            commands.append(("SMEMBERS", shared.unfinished))
            commands.append(("XRANGE", shared.outbox, f"({self._last_event[shard]}", "+"))
            commands.append(("GET", shared.unsettled))
        for name in campaigns:
            keys = campaign_keys(name)
            for key in (keys.campaign, keys.used, keys.caps, keys.tally, keys.reservations, keys.terms):
                commands.append(("HGETALL", key))
            commands.append(("HGETALL", keys.places))
            for key in (keys.ranking, keys.final):
                commands.append(("ZRANGE", key, "0", "-1", "WITHSCORES"))
            commands += [("ZRANGE", offer_keys(name, sku).queue, "0", "-1") for sku in SKUS]
        replies = iter(await self.client.eval(_ALL_AT_ONCE, 0, orjson.dumps(commands)))
        seconds, microseconds = next(replies)
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        seen = Seen(now_ms, {}, {}, {}, {}, set())
        for order in ORDERS:
            version, body = next(replies)
            seen.orders[order] = None if version is None else StoredOrder(int(version), body)
        held = _held([(stream, next(replies)) for stream in streams])
        own: dict[str, dict[str, int]] = defaultdict(dict)
        hold_streams: set[str] = set()
        for shard in shards:
            seen.deadlines |= _counts(next(replies))
            hold_streams |= {ALL_SHARDS[shard].holds(int(hold_ms)) for hold_ms in next(replies)}
            for user, packed in _pairs(next(replies)).items():
                _take_in_user(seen, own, user.decode(), ormsgpack.unpackb(packed))
            seen.unfinished |= {name.decode() for name in next(replies)}
            for entry_id, fields in next(replies):
                self._last_event[shard] = entry_id.decode()
                seen.events.setdefault(shard, []).extend(_events(_pairs(fields)))
            self._events[shard] += len(seen.events.get(shard, ()))
            assert int(next(replies) or 0) == self._events[shard], "what is unsettled is counted"
        assert hold_streams.issuperset(streams), "holds are looked for wherever there are any"
        touched = set(seen.deadlines)
        for name in campaigns:
            seen.campaigns[name], untouched = _campaign(name, replies, own.pop(name, {}), held.pop(name, {}))
            assert not touched & untouched.keys(), "a deadline is kept in one place"
            seen.deadlines |= untouched
        assert not own, "a user's own counters are those of a campaign"
        assert not held, "what is held is held in a campaign"
        return seen


_ALL_AT_ONCE = """
local replies = {}
for i, command in ipairs(cjson.decode(ARGV[1])) do
  replies[i] = redis.call(unpack(command))
end
return replies
"""
Held = dict[str, list[tuple[int, int]]]
"""How long each is held, and since when, in ms, by digest: in every place where that is said."""


def _held(streams: list[tuple[str, Any]]) -> dict[str, Held]:
    """By campaign: who is in the streams of holds."""
    held: dict[str, Held] = defaultdict(lambda: defaultdict(list))
    for stream, entries in streams:
        shard, hold_ms = stream.split(":holds:")
        for entry_id, fields in entries:
            (campaign, digests), *others = _pairs(fields).items()
            assert not others
            assert campaign_keys(campaign.decode()).shard.prefix == shard, (
                "a campaign's holds are in its shard"
            )
            since_ms = int(entry_id.split(b"-")[0])
            for digest in digests.decode().split(" "):
                held[campaign.decode()][digest].append((int(hold_ms), since_ms))
    return held


def _take_in_user(
    seen: Seen, own: dict[str, dict[str, int]], user: str, packed: dict[str, list[Any]]
) -> None:
    """What a shard keeps of a user, and their own counters into `own`, by campaign."""
    for campaign, (digests, *counters) in packed.items():
        known = seen.ids_of.setdefault(user, {})
        assert campaign not in known, "a campaign is in one shard"
        known[campaign] = digests.split()
        for counter, n in zip(counters[::2], counters[1::2], strict=True):
            assert counter.endswith("@"), f"{counter} of {user} is their own"
            assert n != 0, f"{counter}{user} is forgotten when it is back at nothing"
            assert f"{counter}{user}" not in own[campaign], "once"
            own[campaign][f"{counter}{user}"] = n


def _campaign(
    name: str, replies: Iterator[Any], own: dict[str, int], held: Held
) -> tuple[SeenCampaign, dict[str, int]]:
    """A campaign, and the deadlines of those of its reservations that nothing has happened to."""
    hash_, used, caps, tally, packed, terms, places, ranking, final = (next(replies) for _ in range(9))
    lines = [[user.decode() for user in next(replies)] for _ in SKUS]
    hash_, places = _pairs(hash_), _pairs(places)
    queues: dict[str, list[Place]] = {}
    for sku, line in zip(SKUS, lines, strict=True):
        units = {user: places.pop(f"{sku}/{user}".encode()).partition(b" ") for user in line}
        queues[sku] = [Place(user, int(units[user][0]), units[user][2]) for user in line]
    assert not places, "a place is in a queue"
    assert int(hash_.get(b"waiting", 0)) == sum(map(len, lines)), "who waits is counted"
    stored = None
    if hash_:
        revision, changed_at = int(hash_[b"revision"]), int(hash_[b"changed_at"])
        stored = StoredCampaign(name, revision, hash_[b"status"].decode(), hash_[b"document"], changed_at)
    reservations, deadlines = _reservations(name, _pairs(packed), _pairs(terms), held)
    shared = _counts(used)
    assert not any("@" in counter for counter in shared), f"{shared}: a user's own are not among these"
    ranked = {f"#spend@{user}": score for user, score in _counts(ranking).items()}
    seen = SeenCampaign(
        stored,
        shared | own | ranked,
        _counts(caps),
        _counts(tally),
        reservations,
        queues,
        _counts(final) if b"final_at" in hash_ else None,
    )
    return seen, deadlines


def _reservations(
    campaign: str, packed: dict[bytes, bytes], terms: dict[bytes, bytes], held: Held
) -> tuple[dict[str, Reservation], dict[str, int]]:
    """By digest, and the deadlines of those that nothing has happened to."""
    for name, packed_terms in terms.items():
        assert terms_name(packed_terms) == name.decode(), "terms are named after what they say"
    found: dict[str, Reservation] = {}
    deadlines: dict[str, int] = {}
    for digest, record in ((digest.decode(), unpack_record(record)) for digest, record in packed.items()):
        reservation_id, places = ReservationId(campaign, digest), held.pop(digest, [])
        if isinstance(record, ShortRecord):
            made_on = MadeOn.unpack(terms[record.terms.encode()])
            at_ms = record.created_at
            hold = [(made_on.hold_ms, at_ms)] if made_on.hold_ms else []
            assert places == hold, f"{reservation_id}, made at {at_ms}, is found once: {places}"
            if made_on.hold_ms:
                deadlines[str(reservation_id)] = at_ms + made_on.hold_ms
            record = made_on.record(record.user, at_ms)
        else:
            assert len(places) <= 1, f"{reservation_id} was put there once: {places}"
        found[digest] = Reservation.of(reservation_id, record)
    assert not held, f"{held} are held, and not there"
    return found, deadlines


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _counts(flat: list[bytes]) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in _pairs(flat).items()}


def _events(fields: dict[bytes, bytes]) -> list[Event]:
    """What an entry of the outbox tells: something that happened, or all that were made at once."""
    type_ = fields[b"type"].decode()
    if b"who" in fields:
        campaign, terms = fields[b"campaign"].decode(), MadeOn.unpack(fields[b"terms"])
        who, at_ms = ormsgpack.unpackb(fields[b"who"]), int(fields[b"at"])
        made = [
            Reservation.of(ReservationId(campaign, digest), terms.record(user, at_ms))
            for digest, user in zip(who[::2], who[1::2], strict=True)
        ]
        assert made, "an entry tells something"
        if len(made) > 1:
            REACHED.note("several made by one run")
        return [Event(type_, str(one.id), one, fields[b"data"]) for one in made]
    name, packed = fields[b"id"].decode(), fields.get(b"record")
    found = ReservationId.parse(name)
    reservation = Reservation.of(found, Record.of(ormsgpack.unpackb(packed))) if packed and found else None
    data = fields.get(b"data") or fields.get(b"document") or fields.get(b"body") or b""
    if reservation is not None and reservation.version == 1:
        REACHED.note("made without all that was offered")
    return [Event(type_, name, reservation, data)]


def _is_new(event: Event) -> bool:
    return event.reservation is not None and event.reservation.version == 1


def _in_one_order(events: list[Event]) -> list[Event]:
    """With those of new reservations that follow each other by id."""
    found: list[Event] = []
    for is_new, some in groupby(events, _is_new):
        together = list(some)
        found += sorted(together, key=lambda one: one.id) if is_new else together
    return found


class SideBySide:
    """The two worlds, and what was the same in both of them after the last step."""

    def __init__(self, redis: RedisWorld, campaigns: list[str]) -> None:
        self.worlds: tuple[World, World] = (ModelWorld(), redis)
        self.campaigns = campaigns
        self._made: list[str] = []

    async def look(self) -> Seen:
        model, redis = [await world.look(self.campaigns) for world in self.worlds]
        for world, seen in zip(self.worlds, (model, redis), strict=True):
            if world.crowded:
                # Of those made by one run, who got all that was offered is told of before who did not.
                world.crowded = False
                seen.events = {shard: _in_one_order(events) for shard, events in seen.events.items()}
        assert model == redis, "\n".join(["the worlds differ: model, Redis", *_differences("", model, redis)])
        self._made += [e.id for e in redis.all_events if e.reservation and e.reservation.version == 1]
        redis.made = list(self._made)
        return redis

    async def take(
        self,
        act: Callable[[World], Awaitable[object]],
        amid: Callable[[World], Awaitable[object]] | None = None,
    ) -> object:
        """Do the same in both worlds; what came of it in both. `amid` comes before the act's first write."""
        results = []
        for world in self.worlds:
            between: list[object] = []

            async def come_in(world: World = world, between: list[object] = between) -> None:
                assert amid is not None
                between.append(await world.take(amid))

            world.watched.interruption = come_in if amid else None
            world.watched.calls = 0
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(waitlist, "uuid", SimpleNamespace(uuid4=world.next_id))
                # Of two queues at once, either may come first; not here, where both worlds must do the same.
                patch.setattr(waitlist, "asyncio", SimpleNamespace(gather=_in_turn))
                result = await world.take(act)
            world.watched.interruption = None
            results.append((result, between))
        model, redis = results
        assert model == redis, f"the worlds answer differently:\n  model {model}\n  Redis {redis}"
        return model[0]


async def _in_turn(*coming: Awaitable[object]) -> list[object]:
    return [await one for one in coming]


def _differences(path: str, one: Any, other: Any) -> list[str]:
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        names = dict.fromkeys([*one, *other])
        return [line for n in names for line in _differences(f"{path}.{n}", one.get(n), other.get(n))]
    if isinstance(one, (Seen, SeenCampaign)) and type(one) is type(other):
        return _differences(path, vars(one), vars(other))
    return [f"  {path.lstrip('.')}:", f"    {one}", f"    {other}"]


def tally_of(reservations: list[Reservation]) -> Counter[str]:
    """Units by state and SKU, as the records say."""
    units = Counter[str]()
    for one in reservations:
        units[f"{one.state}/{one.sku}"] += one.quantity
    return units
