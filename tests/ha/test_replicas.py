"""Where replicas must have what is acknowledged, a store that none follows acknowledges nothing."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from reservation.administration import Action, Administration
from reservation.catalog import Catalog, parse_campaign
from reservation.clock import StoreClock
from reservation.desk import Desk
from reservation.ids import digest_of
from reservation.kernel import Terms
from reservation.keys import campaign_keys
from reservation.main_order import ReportedOrder
from reservation.order_desk import OrderDesk
from reservation.outbox import Outbox
from reservation.outcomes import Outcome, StoreUnavailable
from reservation.record import unpack_record
from reservation.redis_store import RedisStore
from reservation.replicas import Replicas
from reservation.servers import connect_redis
from reservation.validation import parse
from reservation.waitlist import Waitlist
from tests.ha.shoppers import on_sale
from tests.servers import free_port, redis_server
from tests.stack import eventually

SALE = "sale"


class Replicated:
    """A Redis, and a replica of it that comes and goes."""

    def __init__(self, program: Path, home: Path, running: ExitStack) -> None:
        self._program, self._home = program, home
        self._port = free_port()
        (home / "primary").mkdir()
        # It would wait whether others want to follow too.
        options = ("--repl-diskless-sync-delay", "0")
        self.url = running.enter_context(redis_server(program, home / "primary", *options, port=self._port))
        self._replica = running.enter_context(ExitStack())

    def follow(self, *journal: str) -> str:
        """Start the replica, with nothing in it; its URL."""
        home = self._home / "replica"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        # With a journal, it would not stop before it has written all that it was sent into one.
        options = ("--replicaof", f"127.0.0.1 {self._port}", *(journal or ("--appendonly", "no")))
        return self._replica.enter_context(redis_server(self._program, home, *options))

    def leave(self) -> None:
        self._replica.close()


@pytest.fixture
def replicated(redis_program: Path, tmp_path: Path) -> Iterator[Replicated]:
    with ExitStack() as running:
        yield Replicated(redis_program, tmp_path, running)


@pytest.fixture
async def store(replicated: Replicated) -> AsyncIterator[RedisStore]:
    async with connect_redis(replicated.url) as client:
        yield RedisStore(client, replicas=Replicas(1))


async def followed(url: str) -> None:
    """Return when the replica has all that there is."""
    async with connect_redis(url) as client:

        async def link() -> str:
            return str((await client.info("replication"))["master_link_status"])

        await eventually(link, lambda status: status == "up")


async def caught_up(store: RedisStore) -> None:
    """Return when the primary counts the replica in, and the store has noticed."""

    async def confirmed() -> bool:
        try:
            await store.confirm(SALE)
        except StoreUnavailable:
            return False
        return True

    await eventually(confirmed, lambda found: found)


async def sold_from(store: RedisStore) -> Terms:
    """The terms of a sale whose script the store knows: somebody has reserved."""
    await caught_up(store)
    terms = await on_sale(store, SALE, 100)
    await store.reserve(terms, digest_of(SALE, "cat", ""), "cat")
    return terms


async def test_what_is_acknowledged_is_on_the_replica(replicated: Replicated, store: RedisStore) -> None:
    url = replicated.follow()
    await followed(url)
    await caught_up(store)
    terms = await on_sale(store, SALE, 100)
    for user in ("ann", "bob", "cat"):
        assert (await store.reserve(terms, digest_of(SALE, user, ""), user)).outcome is Outcome.MOVED
    async with connect_redis(url) as client:
        found = await client.hvals(campaign_keys(SALE).reservations)  # type: ignore[misc]
    assert {unpack_record(packed).user for packed in found} == {"ann", "bob", "cat"}


async def test_without_the_replica_nobody_knows_and_a_retry_tells(
    replicated: Replicated, store: RedisStore
) -> None:
    await followed(replicated.follow())
    terms = await sold_from(store)
    replicated.leave()
    with pytest.raises(StoreUnavailable, match="0 of 1 replicas") as caught:
        await store.reserve(terms, digest_of(SALE, "ann", ""), "ann")
    assert caught.value.sent, "it may come to be"
    with pytest.raises(StoreUnavailable, match="0 of 1 replicas") as caught:
        await store.reserve(terms, digest_of(SALE, "bob", ""), "bob")
    assert not caught.value.sent, "who comes now is refused at once, and holds up nobody"
    assert await store.reservation_ids_of("ann"), "who only looks needs no replica"
    await followed(replicated.follow())

    async def again() -> Outcome:
        try:
            return (await store.reserve(terms, digest_of(SALE, "ann", ""), "ann")).outcome
        except StoreUnavailable:
            return Outcome.STORE_UNAVAILABLE

    assert await eventually(again, lambda told: told is not Outcome.STORE_UNAVAILABLE) is Outcome.REPLAYED
    assert (await store.standing(SALE, ["stock/phone"])).levels[0].used == 2


async def test_what_no_replica_has_is_not_settled(replicated: Replicated, store: RedisStore) -> None:
    """Else the book would have what nobody was told of, and what the next master knows nothing of."""
    await followed(replicated.follow())
    terms = await sold_from(store)
    async with connect_redis(replicated.url) as client:
        outbox = Outbox(client, "relay", replicas=Replicas(1))
        await outbox.open()
        found = [entry.envelope["type"] for entry in await outbox.next()]
        assert found == ["campaign_changed", "reserved"]
        replicated.leave()
        with pytest.raises(StoreUnavailable):
            await store.reserve(terms, digest_of(SALE, "ann", ""), "ann")
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await outbox.next()
        await followed(replicated.follow())

        async def types() -> list[str]:
            return [entry.envelope["type"] for entry in await outbox.next()]

        assert "reserved" in await eventually(types, lambda found: "reserved" in found)


async def test_what_was_read_is_confirmed_only_where_a_replica_has_it(
    replicated: Replicated, store: RedisStore
) -> None:
    """So who cancels again, after nobody knew, is not told of a cancellation that the next master has not."""
    await followed(replicated.follow())
    terms = await sold_from(store)
    await store.confirm(SALE)
    replicated.leave()
    with pytest.raises(StoreUnavailable):
        await store.reserve(terms, digest_of(SALE, "ann", ""), "ann")
    with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
        await store.confirm(SALE)
    await followed(replicated.follow())
    await caught_up(store)


ADD_ONS = {
    "id": "add-ons", "kind": "trade_in", "currency": "CNY",
    "opens_at": "2026-01-01T00:00:00Z", "closes_at": "2096-01-01T00:00:00Z",
    "entitlement": {"grants": 2}, "offers": [{"sku": "case", "price": 100, "stock": 5}],
}  # fmt: skip
ORDER = {
    "order_id": "shop-1", "user": "ann", "paid_at": "2026-01-01T00:00:00Z",
    "lines": [{"sku": "tv", "amount": 100}],
}  # fmt: skip


class NothingRemembered:
    async def remembers(self, campaign: str) -> bool:
        return False


async def test_what_was_changed_already_is_said_to_be_only_where_a_replica_has_it(
    replicated: Replicated, store: RedisStore
) -> None:
    """So who pauses, applies, reports, cancels or leaves again, after nobody knew, is not told so either."""
    await followed(replicated.follow())
    await caught_up(store)
    catalog, clock = Catalog(store, StoreClock()), StoreClock()
    desk = Desk(store, catalog, clock)
    office, orders = Administration(store, catalog, NothingRemembered()), OrderDesk(store, catalog, desk)
    document, reported = parse_campaign(ADD_ONS), parse(ReportedOrder, ORDER)
    line = Waitlist(store, catalog, clock, desk)
    all_of_it: list[Callable[[], Awaitable[object]]] = [
        lambda: office.put(document),
        lambda: office.act(document.id, Action.PAUSE),
        lambda: orders.report(reported),
        lambda: orders.cancel("shop-2"),
        lambda: line.leave(document.id, "ann", None),
    ]
    for change in all_of_it:
        await change()
    replicated.leave()
    for again in all_of_it:
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await again()
    await followed(replicated.follow())

    async def told(change: Callable[[], Awaitable[object]]) -> bool:
        try:
            await change()
        except StoreUnavailable:
            return False
        return True

    for again in all_of_it:
        await eventually(partial(told, again), bool)


@pytest.fixture
def on_disks(valkey_program: Path, tmp_path: Path) -> Iterator[Replicated]:
    with ExitStack() as running:
        yield Replicated(valkey_program, tmp_path, running)


async def configured(url: str, name: str, value: str) -> None:
    async with connect_redis(url) as client:
        await client.config_set(name, value)


async def test_what_is_acknowledged_is_on_the_disk_of_the_replica_where_that_is_asked(
    on_disks: Replicated,
) -> None:
    """A replica that has everything in memory, and whose disk stands still, has nothing acknowledged."""
    url = on_disks.follow("--appendonly", "yes", "--appendfsync", "always")
    await followed(url)
    async with connect_redis(on_disks.url) as client:
        store, in_memory = (RedisStore(client, replicas=Replicas(1, disk)) for disk in (True, False))
        terms = await sold_from(store)
        for user in ("ann", "bob"):
            assert (await store.reserve(terms, digest_of(SALE, user, ""), user)).outcome is Outcome.MOVED
        await configured(url, "appendonly", "no")
        assert (await in_memory.reserve(terms, digest_of(SALE, "dan", ""), "dan")).outcome is Outcome.MOVED
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas have it on disk") as caught:
            await store.reserve(terms, digest_of(SALE, "eve", ""), "eve")
        assert caught.value.sent, "it may come to be"
        with pytest.raises(StoreUnavailable, match="on disk") as caught:
            await store.reserve(terms, digest_of(SALE, "fay", ""), "fay")
        assert not caught.value.sent, "who comes now is refused at once"
        await configured(url, "appendonly", "yes")
        await caught_up(store)
        assert (await store.reserve(terms, digest_of(SALE, "eve", ""), "eve")).outcome is Outcome.REPLAYED


async def test_a_primary_that_keeps_no_journal_any_more_acknowledges_nothing(on_disks: Replicated) -> None:
    await followed(on_disks.follow("--appendonly", "yes", "--appendfsync", "always"))
    async with connect_redis(on_disks.url) as client:
        store = RedisStore(client, replicas=Replicas(1, on_disk=True))
        terms = await sold_from(store)
        await configured(on_disks.url, "appendonly", "no")
        with pytest.raises(StoreUnavailable, match="appendonly is disabled"):
            await store.reserve(terms, digest_of(SALE, "ann", ""), "ann")
        with pytest.raises(StoreUnavailable, match="appendonly is disabled"):
            await store.confirm(SALE)
