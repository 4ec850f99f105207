"""A store that comes back without what it acknowledged sells nothing before it has been reconciled."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from doorbuster.reconcile import text
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.desk import Desk, Request, Reserved
from reservation.fence import PROVING_MS
from reservation.outbox import Outbox
from reservation.outcomes import Outcome, StoreUnavailable
from reservation.redis_store import RedisStore, connect_redis
from settlement.book import Book
from settlement.book_witness import BookWitness
from settlement.reconcile import Drift, Gone
from tests.servers import free_port, redis_server
from tests.settlement.conftest import Shop, open_shop
from tests.settlement.running import met_again, proved
from tests.settlement.test_reconcile import all_is_well, drifts, reconcile, settle
from tests.stack import eventually

Server = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def server(redis_program: Path, tmp_path: Path) -> Server:
    """The same Redis each time that it is started, with what is in its directory."""
    port = free_port()
    (tmp_path / "redis").mkdir()
    return lambda: redis_server(redis_program, tmp_path / "redis", port=port)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    """One that outlives the server."""
    with server() as url:
        pass
    async with connect_redis(url) as found:
        yield found


def journal(home: Path) -> Path:
    (found,) = (home / "redis" / "appendonlydir").glob("*.incr.aof")
    return found


class Cut:
    """What is written from here on is lost, as when the machine went before its disk had it."""

    def __init__(self, home: Path) -> None:
        self._journal = journal(home)
        self._size = self._journal.stat().st_size

    def happen(self) -> None:
        with self._journal.open("r+b") as file:
            file.truncate(self._size)


@asynccontextmanager
async def another_process(client: Redis) -> AsyncIterator[RedisStore]:
    """A store as one sees it who has never seen it before."""
    async with connect_redis(f"redis://127.0.0.1:{client.get_connection_kwargs()['port']}/0") as other:
        yield RedisStore(other)


async def answer(shop: Shop, user: str) -> str:
    """What a wish to reserve one comes to."""
    try:
        found = await shop.desk.reserve(shop.campaign, user, None, user, Request("phone", 1))
    except StoreUnavailable as fault:
        return "fenced" if "fenced" in str(fault) else str(fault)
    return "reserved" if isinstance(found, Reserved) else str(found.code)


async def why_away(store: RedisStore) -> str:
    """Why the store cannot be asked anything; nothing, if it can."""
    try:
        await store.now_ms()
    except StoreUnavailable as fault:
        return str(fault)
    return ""


async def settled_shop(client: Redis, book: Book) -> Shop:
    """One that has sold something, and the book has it."""
    shop = await open_shop(client, book)
    await shop.reserve("ann")
    await settle(client, book)
    return shop


async def test_a_restart_that_loses_nothing_takes_nothing_for_a_moment_only(
    server: Server, client: Redis, book: Book
) -> None:
    with server():
        shop = await open_shop(client, book)
        ann = await shop.reserve("ann")
    with server():
        await met_again(shop.store)
        assert await answer(shop, "bob") == "fenced"
        await proved(shop.store)
        assert await answer(shop, "bob") == "reserved"
        assert (await shop.reserve("ann")).id == ann.id
        assert {run.epoch for run in await shop.store.runs()} == {2}


async def test_what_a_gateway_was_acknowledged_and_the_store_has_not_fences_the_store(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    with server():
        shop = await open_shop(client, book)
        cut = Cut(tmp_path)
        ann = await shop.reserve("ann")
        await settle(client, book)
    cut.happen()
    with server():
        await met_again(shop.store)
        assert await answer(shop, "bob") == "fenced"
        assert "acknowledged one" in await shop.store.fenced()
        await asyncio.sleep(PROVING_MS / 1000)
        assert "acknowledged one" in await shop.store.fenced(), "that does not pass by itself"
        async with another_process(client) as other:
            desk = Desk(other, Catalog(other, StoreClock()), StoreClock())
            assert await answer(Shop(desk, other, shop.campaign), "bob") == "fenced", "for nobody"
        with pytest.raises(StoreUnavailable):
            await shop.desk.cancel(ann.id, "ann")

        found = await reconcile(shop, book, repair=True)
        assert not found.ok
        assert found.fenced, "one campaign is not all"
        found = await reconcile(shop, book, repair=True, lift=True)
        assert found.ok
        assert found.lifted
        assert await answer(shop, "bob") == "reserved"
        assert (await shop.store.reservation(ann.id)) is not None
        await client.connection_pool.disconnect(inuse_connections=False)
        await settle(client, book)
        await all_is_well(shop, book)


async def test_who_cannot_fence_a_store_does_not_use_it(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    """Its memory is full, and somebody has entered who knows nothing against it."""
    with server():
        shop = await open_shop(client, book)
        cut = Cut(tmp_path)
        await shop.reserve("ann")
    cut.happen()
    with server() as url:
        async with another_process(client) as other:
            await proved(other)
        async with connect_redis(url) as apart:
            await apart.config_set("maxmemory", 1)
            await eventually(lambda: why_away(shop.store), lambda why: "maxmemory" in why)
            await apart.config_set("maxmemory", 0)
        await met_again(shop.store)
        assert "acknowledged one" in await shop.store.fenced()
        assert await answer(shop, "bob") == "fenced"


async def test_what_somebody_was_told_of_and_nobody_has_is_named(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    with server():
        shop = await open_shop(client, book)
        ann = await shop.reserve("ann")
        await settle(client, book)
        cut = Cut(tmp_path)
        bob, cat = await asyncio.gather(shop.reserve("bob"), shop.reserve("cat"))
        await shop.pay(ann)
        await shop.desk.cancel(cat.id, "cat")
    cut.happen()
    gone = [Gone(str(ann.id), 3, 1), Gone(str(bob.id), 1, 0), Gone(str(cat.id), 2, 0)]
    with server():
        await met_again(shop.store)
        for repair in (False, True):
            found = await reconcile(shop, book, repair=repair, lift=repair)
            assert sorted(found.gone, key=lambda one: one.id) == sorted(gone, key=lambda one: one.id)
        assert found.ok, "what is left agrees"
        said = text(found, repair=True)
        assert "gone: 3, of which somebody was told and which are nowhere" in said
        assert f"  {ann.id}: version 3; version 1 is left of it" in said
        assert f"  {bob.id}: version 1; nothing is left of it" in said
        assert (await reconcile(shop, book)).gone == [], "once"
        await all_is_well(shop, book)


async def test_what_is_lost_is_not_sold_to_somebody_else(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    with server():
        shop = await open_shop(client, book)
        stock = (await shop.store.standing(shop.campaign, ["stock/phone"])).levels[0].cap
        for number in range(stock - 1):
            await shop.reserve(f"user-{number}")
        cut = Cut(tmp_path)
        await shop.reserve("ann")
        await settle(client, book)
    cut.happen()
    with server():
        await met_again(shop.store)
        answers = [await answer(shop, "bob") for _ in range(20)]
        assert set(answers) == {"fenced"}
        found = await reconcile(shop, book, repair=True, lift=True)
        assert drifts(found) == {Drift.RESERVATION_LOST: 1}
        assert await answer(shop, "bob") == Outcome.SOLD_OUT
        await all_is_well(shop, book)


async def test_a_move_that_was_lost_cannot_be_made_otherwise(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    with server():
        shop = await open_shop(client, book)
        ann = await shop.reserve("ann")
        cut = Cut(tmp_path)
        await shop.pay(ann)
        await settle(client, book)
    cut.happen()
    with server():
        await met_again(shop.store)
        with pytest.raises(StoreUnavailable):
            await shop.desk.cancel(ann.id, "ann")
        await reconcile(shop, book, repair=True, lift=True)
        found = await shop.store.reservation(ann.id)
        assert found is not None
        assert found.state == "confirmed"
        await all_is_well(shop, book)


async def test_an_old_copy_that_comes_back_is_fenced(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    """As a primary that was cut off, while another one went on in its place."""
    with server():
        shop = await open_shop(client, book)
    shutil.copytree(tmp_path / "redis", tmp_path / "old")
    with server():
        await proved(shop.store)
        await shop.reserve("ann")
        assert {run.epoch for run in await shop.store.runs()} == {2}
    shutil.rmtree(tmp_path / "redis")
    (tmp_path / "old").rename(tmp_path / "redis")
    with server():
        await met_again(shop.store)
        assert await answer(shop, "bob") == "fenced"
        assert "also calls itself run 2" in await shop.store.fenced(), "it counts its runs by itself"


async def test_who_has_read_more_than_there_is_fences_the_store(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    """The gateway that was acknowledged has ended with the store; the relay has not."""
    with server():
        shop = await open_shop(client, book)
        outbox = Outbox(client, "relay")
        await outbox.open()
        await outbox.next()
        cut = Cut(tmp_path)
        await shop.reserve("ann")
        await outbox.next()
    cut.happen()
    with server():
        async with another_process(client) as other:
            await proved(other)
            with suppress(StoreUnavailable):
                await outbox.next()  # its connection may be gone
            await outbox.next()
            assert "acknowledged one" in await other.fenced()


async def test_the_book_knows_what_nobody_else_has_seen(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    with server():
        shop = await open_shop(client, book)
        cut = Cut(tmp_path)
        await shop.reserve("ann")
        await settle(client, book)
    cut.happen()
    with server():
        async with another_process(client) as other:
            await proved(other)
            witness = BookWitness(other, book)
            assert await witness.look() == 1
            assert "the book has later ones" in await other.fenced()
            await reconcile(Shop(shop.desk, other, shop.campaign), book, repair=True, lift=True)
            assert await witness.look() == 0, "the run has been reconciled"
            assert await BookWitness(other, book).look() == 0
            assert await other.fenced() == ""


async def test_a_store_that_is_emptied_while_it_runs_is_fenced(
    server: Server, client: Redis, book: Book
) -> None:
    """Nobody loses a connection by it, so nobody enters anew."""
    with server():
        shop = await settled_shop(client, book)
        witness = BookWitness(shop.store, book)
        assert await witness.look() == 0
        await client.flushall()
        assert await witness.look() == 1
        assert "was emptied" in await shop.store.fenced()
        await reconcile(shop, book, repair=True, lift=True)
        assert await witness.look() == 0
        assert await shop.store.fenced() == ""
        async with another_process(client) as other:
            await proved(other)
            assert await BookWitness(other, book).look() == 0
            assert await other.fenced() == ""


async def test_the_book_has_nothing_against_a_run_that_lost_nothing(
    server: Server, client: Redis, book: Book
) -> None:
    with server():
        shop = await settled_shop(client, book)
    with server():
        await proved(shop.store)
        assert await shop.store.fenced() == ""
        await shop.reserve("bob")
        await client.connection_pool.disconnect(inuse_connections=False)
        await settle(client, book)
        assert await BookWitness(shop.store, book).look() == 0


async def test_who_slept_through_a_repair_does_not_fence_again(
    server: Server, client: Redis, book: Book, tmp_path: Path
) -> None:
    with server() as url:
        shop = await open_shop(client, book)
        async with connect_redis(url) as another:
            sleeper = RedisStore(another)
            desk = Desk(sleeper, Catalog(sleeper, StoreClock()), StoreClock())
            cut = Cut(tmp_path)
            assert await answer(Shop(desk, sleeper, shop.campaign), "ann") == "reserved"
            await shop.reserve("bob")
            await settle(client, book)
            await another.connection_pool.disconnect()
    cut.happen()
    with server():
        await met_again(shop.store)
        assert await answer(shop, "cat") == "fenced"
        await reconcile(shop, book, repair=True, lift=True)
        assert await answer(Shop(desk, sleeper, shop.campaign), "cat") == "reserved"
        assert await sleeper.fenced() == ""
        assert await answer(shop, "dan") == "reserved"
