"""Two complete worlds: one on the model, one on the scripts in Redis. They must never differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import orjson
import pytest
from redis.asyncio import Redis

from reservation import waitlist
from reservation.administration import Administration
from reservation.campaign import Campaign
from reservation.catalog import Catalog
from reservation.desk import Desk
from reservation.ids import ReservationId
from reservation.kernel import Move, Moved, Place, Placed, Store, StoredCampaign, StoredOrder
from reservation.keys import ALL_SHARDS, campaign_keys, offer_keys, order_keys, shard_of
from reservation.model import ModelStore
from reservation.order_desk import OrderDesk
from reservation.record import Record, Reservation
from reservation.redis_store import RedisStore
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
    ids_of: dict[str, list[str]]
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


class WatchedStore:
    """A store that notes what became of each move, and lets something else come in before the next write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.interruption: Callable[[], Awaitable[None]] | None = None
        self.moves: list[Move] = []
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
        moved = await self._store.move(move)
        REACHED.note(f"move: {moved.outcome}")
        self.moves.append(move)
        return moved

    async def take_place(self, move: Move, details: bytes) -> Placed:
        await self._called(writes=True)
        placed = await self._store.take_place(move, details)
        REACHED.note(f"place: {placed.outcome}")
        return placed

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

    async def take(self, act: Callable[[World], Awaitable[object]]) -> object:
        """What came of one act, in a form that can be compared."""
        try:
            result = await act(self)
        except Invalid as invalid:
            return ("invalid", str(invalid))
        if isinstance(result, tuple):
            return tuple(_comparable(one) for one in result)
        return _comparable(result)

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

    async def look(self, campaigns: list[str]) -> Seen:
        model = self.model
        events: dict[int, list[Event]] = {}
        for event in model.outbox[self._events_seen :]:
            shard = shard_of(event.id.partition(".")[0])
            events.setdefault(shard, []).append(Event(*event))
        self._events_seen = len(model.outbox)
        return Seen(
            self.clock.ms,
            {name: await self._campaign(name) for name in campaigns},
            {str(one): at for one, at in model._deadlines.items()},
            {user: sorted(map(str, model._index.get(user, ()))) for user in USERS},
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

    async def look(self, campaigns: list[str]) -> Seen:
        shards = sorted({shard_of(name) for name in (*campaigns, *ORDERS)})
        commands: list[tuple[str, ...]] = [("TIME",)]
        for name in campaigns:
            keys = campaign_keys(name)
            for key in (keys.campaign, keys.used, keys.caps, keys.tally, keys.reservations, keys.places):
                commands.append(("HGETALL", key))
            for key in (keys.ranking, keys.final):
                commands.append(("ZRANGE", key, "0", "-1", "WITHSCORES"))
            commands += [("ZRANGE", offer_keys(name, sku).queue, "0", "-1") for sku in SKUS]
        commands += [("HMGET", order_keys(order).order, "version", "body") for order in ORDERS]
        for shard in shards:
            shared = ALL_SHARDS[shard]
            commands.append(("ZRANGE", shared.deadlines, "0", "-1", "WITHSCORES"))
            commands.append(("HGETALL", shared.index))
            commands.append(("SMEMBERS", shared.unfinished))
            commands.append(("XRANGE", shared.outbox, f"({self._last_event[shard]}", "+"))
        replies = iter(await self.client.eval(_ALL_AT_ONCE, 0, orjson.dumps(commands)))
        seconds, microseconds = next(replies)
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        seen = Seen(now_ms, {name: _campaign(name, replies) for name in campaigns}, {}, {}, {}, set())
        for order in ORDERS:
            version, body = next(replies)
            seen.orders[order] = None if version is None else StoredOrder(int(version), body)
        ids_of: dict[str, list[str]] = {user: [] for user in USERS}
        for shard in shards:
            seen.deadlines |= _counts(next(replies))
            for user, ids in _pairs(next(replies)).items():
                ids_of[user.decode()] += ids.decode().split(" ")
            seen.unfinished |= {name.decode() for name in next(replies)}
            for entry_id, fields in next(replies):
                self._last_event[shard] = entry_id.decode()
                seen.events.setdefault(shard, []).append(_event(_pairs(fields)))
        seen.ids_of = {user: sorted(ids) for user, ids in ids_of.items()}
        return seen


_ALL_AT_ONCE = """
local replies = {}
for i, command in ipairs(cjson.decode(ARGV[1])) do
  replies[i] = redis.call(unpack(command))
end
return replies
"""


def _campaign(name: str, replies: Any) -> SeenCampaign:
    hash_, used, caps, tally, packed, places, ranking, final = (next(replies) for _ in range(8))
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
    records = {
        digest.decode(): Reservation.of(ReservationId(name, digest.decode()), Record.unpack(record))
        for digest, record in _pairs(packed).items()
    }
    ranked = {f"#spend@{user}": score for user, score in _counts(ranking).items()}
    return SeenCampaign(
        stored,
        _counts(used) | ranked,
        _counts(caps),
        _counts(tally),
        records,
        queues,
        _counts(final) if b"final_at" in hash_ else None,
    )


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _counts(flat: list[bytes]) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in _pairs(flat).items()}


def _event(fields: dict[bytes, bytes]) -> Event:
    name, packed = fields[b"id"].decode(), fields.get(b"record")
    found = ReservationId.parse(name)
    reservation = Reservation.of(found, Record.unpack(packed)) if packed and found else None
    data = fields.get(b"data") or fields.get(b"document") or fields.get(b"body") or b""
    return Event(fields[b"type"].decode(), name, reservation, data)


class SideBySide:
    """The two worlds, and what was the same in both of them after the last step."""

    def __init__(self, redis: RedisWorld, campaigns: list[str]) -> None:
        self.worlds: tuple[World, World] = (ModelWorld(), redis)
        self.campaigns = campaigns
        self._made: list[str] = []

    async def look(self) -> Seen:
        model, redis = [await world.look(self.campaigns) for world in self.worlds]
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
