"""The store and the book are made to agree again, whichever has lost something, and nothing is sold twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from redis.asyncio import Redis

from reservation.administration import Action, Administration
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.desk import Desk, Request, Reserved
from reservation.ids import Stage
from reservation.kernel import Snapshot
from reservation.keys import ALL_SHARDS, campaign_keys, order_keys
from reservation.main_order import MainOrder, OrderLine, OrderState, ReportedOrder
from reservation.order_book import OrderBook
from reservation.order_desk import OrderDesk
from reservation.outbox import Outbox
from reservation.outcomes import Outcome, Refusal
from reservation.record import State
from reservation.redis_store import RedisStore, connect_redis
from reservation.validation import parse
from settlement.audit import Auditor
from settlement.book import Book
from settlement.dead_letters import StoreDeadLetters
from settlement.reconcile import Drift, Reconciler, Reconciliation
from settlement.source import OutboxSource
from tests.servers import redis_server
from tests.settlement.conftest import Shop, open_shop
from tests.settlement.running import proved, working
from tests.stack import sale, trade_in

TV = MainOrder("shop-1", OrderState.PAID, "ann", (OrderLine("tv-65", "tv", 450_000),), 1_000)


async def settle(client: Redis, book: Book) -> None:
    """Bring all that waits in the outbox into the book."""
    outbox = Outbox(client, "test")
    await outbox.open()
    while (await outbox.backlog(0)).events:
        entries = await outbox.read()
        await book.settle([entry.envelope for entry in entries])
        await outbox.done(entries)


async def lively(shop: Shop) -> None:
    """Reservations in every state that a flash sale knows."""
    held = [await shop.reserve(user) for user in ("ann", "bob", "cat", "dan")]
    await shop.pay(held[0])
    await shop.desk.cancel(held[1].id, "bob")
    await shop.desk.request_payment(held[2].id, "cat", Stage.FULL)


async def state(shop: Shop) -> Snapshot:
    snapshot = await shop.store.snapshot(shop.campaign)
    assert snapshot is not None
    tally = {name: n for name, n in snapshot.tally.items() if n}
    reservations = sorted(snapshot.reservations, key=str)
    return snapshot._replace(tally=tally, reservations=reservations, adjusted=0)


async def reconcile(
    shop: Shop, book: Book, *, repair: bool = False, lift: bool = False, seconds: float = 0
) -> Reconciliation:
    return await Reconciler(shop.store, book, settle_seconds_max=seconds).reconcile(
        [shop.campaign], repair=repair, lift=lift
    )


def drifts(found: Reconciliation) -> Counter[Drift]:
    return Counter(one.drift for one in found.differences)


async def all_is_well(shop: Shop, book: Book) -> None:
    audit = await Auditor(shop.store, book, settle_seconds_max=0).audit([shop.campaign])
    assert audit.ok, audit.to_json()
    found = await reconcile(shop, book)
    assert found.ok, found.differences
    assert not found.differences


async def resume(shop: Shop, book: Book) -> None:
    administration = Administration(shop.store, Catalog(shop.store, StoreClock()), book)
    assert not isinstance(await administration.act(shop.campaign, Action.RESUME), Refusal)


async def test_stores_that_agree_have_nothing_to_reconcile(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    await lively(shop)
    await settle(redis_client, book)
    await all_is_well(shop, book)


async def test_a_store_that_has_lost_everything_is_rebuilt_from_the_book(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    await lively(shop)
    await settle(redis_client, book)
    before = await state(shop)
    await redis_client.flushall()
    found = await reconcile(shop, book)
    assert drifts(found) == {Drift.CAMPAIGN_LOST: 1, Drift.RESERVATION_LOST: 4}
    assert not found.ok
    assert await redis_client.dbsize() == 0, "who only looks changes nothing"

    found = await reconcile(shop, book, repair=True)
    assert drifts(found) == {Drift.CAMPAIGN_LOST: 1, Drift.RESERVATION_LOST: 4}
    assert found.ok, found.differences
    assert found.paused == [shop.campaign]
    assert await state(shop) == before
    await settle(redis_client, book)
    await all_is_well(shop, book)

    shop = Shop(Desk(shop.store, Catalog(shop.store, StoreClock()), StoreClock()), shop.store, shop.campaign)
    refused = await shop.desk.reserve(shop.campaign, "eve", None, "eve", Request("phone", 1))
    assert isinstance(refused, Refusal)
    assert refused.code is Outcome.PAUSED
    await resume(shop, book)
    again = await shop.desk.reserve(shop.campaign, "ann", None, "ann", Request("phone", 1))
    assert isinstance(again, Reserved)
    assert again.replayed
    await shop.reserve("eve")
    assert (await state(shop)).used["stock/phone"] == 4
    await settle(redis_client, book)
    await all_is_well(shop, book)


async def test_a_gateway_that_knew_the_campaign_sells_nothing_before_it_is_resumed(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    await lively(shop)
    await settle(redis_client, book)
    await redis_client.flushall()
    await reconcile(shop, book, repair=True)
    refused = await shop.desk.reserve(shop.campaign, "eve", None, "eve", Request("phone", 1))
    assert isinstance(refused, Refusal)
    assert refused.code is Outcome.PAUSED
    await resume(shop, book)
    await shop.reserve("eve")


async def test_what_happened_after_the_last_save_comes_back(
    redis_program: Path, tmp_path: Path, book: Book
) -> None:
    def server() -> AbstractContextManager[str]:
        return redis_server(redis_program, tmp_path, "--appendonly", "no")

    with server() as url:
        async with connect_redis(url) as client:
            shop = await open_shop(client, book)
            ann, bob = await shop.reserve("ann"), await shop.reserve("bob")
            await client.save()
            await shop.pay(ann)
            await shop.desk.cancel(bob.id, "bob")
            cat = await shop.reserve("cat")
            await settle(client, book)
            before = await state(shop)
    with server() as url:
        async with connect_redis(url) as client:
            store = RedisStore(client)
            desk = Desk(store, Catalog(store, StoreClock()), StoreClock())
            shop = Shop(desk, store, shop.campaign)
            await proved(store)
            assert await store.reservation(cat.id) is None, "the server came back as it was saved"
            await settle(client, book)  # what was settled once comes again, and is known
            found = await reconcile(shop, book)
            assert drifts(found) == {Drift.RESERVATION_BEHIND: 2, Drift.RESERVATION_LOST: 1}
            found = await reconcile(shop, book, repair=True)
            assert found.ok, found.differences
            assert found.paused == []
            assert await state(shop) == before
            await all_is_well(shop, book)


async def test_what_was_sold_again_meanwhile_is_told_and_not_sold_twice(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    (ann,) = [await shop.reserve("ann", 2)]
    await settle(redis_client, book)
    await lose(redis_client)
    stock = (await state(shop)).caps["stock/phone"]
    for number in range(stock - 1):
        await shop.reserve(f"user-{number}")
    found = await reconcile(shop, book, repair=True, seconds=0)
    (difference,) = [one for one in found.differences if one.drift is Drift.RESERVATION_LOST]
    assert difference.id == str(ann.id)
    assert not difference.mended
    assert "stock/phone" in difference.detail
    assert not found.ok
    assert (await state(shop)).used["stock/phone"] == stock - 1


async def lose(client: Redis) -> None:
    """All reservations, and what they claimed; the campaigns stay."""
    for name in ("reservations", "used", "tally", "users", "deadlines", "holds:*"):
        async for key in client.scan_iter(match=f"*:{name}"):
            await client.delete(key)


async def test_an_audit_takes_one_snapshot_and_looks_up_what_came_into_the_book_since(
    shop: Shop, redis_client: Redis, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await shop.reserve("ann")
    await settle(redis_client, book)
    await lose(redis_client)
    snapshot, taken = shop.store.snapshot, list[str]()

    async def overtaken(campaign: str) -> Snapshot | None:
        taken.append(campaign)
        found = await snapshot(campaign)
        await shop.reserve("bob")
        await settle(redis_client, book)
        return found

    monkeypatch.setattr(shop.store, "snapshot", overtaken)
    (audit,) = (await Auditor(shop.store, book, settle_seconds_max=0).audit([shop.campaign])).campaigns
    assert [(one.invariant, one.detail.partition(":")[0]) for one in audit.violations] == [
        ("I5", str(lost.id))
    ]
    assert len(taken) == 1


async def test_what_the_book_has_lost_is_told_it_again(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    await lively(shop)
    await settle(redis_client, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM orders WHERE user_id IN ('ann', 'dan')")
        connection.execute("DELETE FROM order_events WHERE version > 1")
        connection.execute("DELETE FROM payments")
        connection.execute("UPDATE orders SET version = 1, state = 'held' WHERE user_id = 'cat'")
    found = await reconcile(shop, book)
    # bob's order is as it was, but a step of his history is gone: that is told again too.
    assert drifts(found) == {Drift.RESERVATION_UNTOLD: 4}
    assert not found.ok
    found = await reconcile(shop, book, repair=True)
    assert found.ok, found.differences
    await settle(redis_client, book)
    await all_is_well(shop, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        rows = connection.execute("SELECT user_id, state, version FROM orders ORDER BY 1").fetchall()
        assert [row[:2] for row in rows] == [
            ("ann", "confirmed"),
            ("bob", "cancelled"),
            ("cat", "held"),
            ("dan", "held"),
        ]
        events = dict(
            connection.execute(
                "SELECT o.user_id, count(*) FROM order_events e JOIN orders o USING (reservation_id)"
                " GROUP BY 1"
            ).fetchall()
        )
        assert {row[0]: row[2] for row in rows} == events
        (paid,) = (
            connection.execute("SELECT count(*) FROM payments WHERE status = 'succeeded'").fetchone() or ()
        )
        assert paid == 1


async def test_what_is_on_its_way_is_no_difference(shop: Shop, redis_client: Redis, book: Book) -> None:
    await lively(shop)
    looking = asyncio.create_task(reconcile(shop, book, seconds=20))
    source = OutboxSource(Outbox(redis_client, "worker"), StoreDeadLetters(redis_client))
    async with working(source, book):
        found = await looking
    assert not found.differences


async def test_what_is_on_its_way_is_waited_for_once_and_not_for_each_campaign(
    redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    shops = [await open_shop(redis_client, book) for _ in range(4)]
    for shop in shops:
        await shop.reserve("ann")
    await OrderBook(shops[0].store).change("shop-1", lambda _: TV, event=True)
    await settle(redis_client, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE campaigns, campaign_revisions, orders, order_events, main_orders")
    began = time.monotonic()
    reconciler = Reconciler(shops[0].store, book, settle_seconds_max=2)
    found = await reconciler.reconcile([shop.campaign for shop in shops], repair=True)
    untold = {Drift.CAMPAIGN_UNTOLD: 4, Drift.RESERVATION_UNTOLD: 4, Drift.MAIN_ORDER_UNTOLD: 1}
    assert drifts(found) == untold
    assert time.monotonic() - began < 2 * 2


async def test_a_campaign_that_came_back_older_is_as_the_book_has_it_but_paused(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    await settle(redis_client, book)
    old = {
        key: await redis_client.dump(key)
        async for key in redis_client.scan_iter(match=f"*:{shop.campaign}:*")
    }
    administration = Administration(shop.store, Catalog(shop.store, StoreClock()), book)
    restocked = await administration.restock(shop.campaign, "phone", 3)
    assert not isinstance(restocked, Refusal)
    await settle(redis_client, book)
    for key, value in old.items():
        await redis_client.restore(key, 0, value, replace=True)
    assert drifts(await reconcile(shop, book)) == {Drift.CAMPAIGN_BEHIND: 1}
    found = await reconcile(shop, book, repair=True)
    assert found.paused == [shop.campaign]
    await settle(redis_client, book)
    assert (await state(shop)).caps["stock/phone"] == restocked.offers["phone"].stock
    await all_is_well(shop, book)


async def test_a_campaign_that_the_book_never_heard_of_is_told_it(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    await shop.reserve("ann")
    await settle(redis_client, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE campaigns, campaign_revisions, orders, order_events")
    assert drifts(await reconcile(shop, book)) == {Drift.CAMPAIGN_UNTOLD: 1, Drift.RESERVATION_UNTOLD: 1}
    found = await reconcile(shop, book, repair=True)
    assert found.ok
    assert found.paused == [], "it sells on"
    await settle(redis_client, book)
    await all_is_well(shop, book)


async def test_a_main_order_comes_back_to_be_finished(shop: Shop, redis_client: Redis, book: Book) -> None:
    orders = OrderBook(shop.store)
    line = OrderLine("tv-65", "tv", 450_000)
    order = MainOrder("shop-1", OrderState.PAID, "ann", (line,), 1_000)
    await orders.change("shop-1", lambda _: order, event=True)
    await settle(redis_client, book)
    await redis_client.flushall()
    found = await reconcile(shop, book, repair=True)
    assert drifts(found)[Drift.MAIN_ORDER_LOST] == 1
    assert found.ok
    read = await orders.read("shop-1")
    assert read is not None
    assert (read.state, read.user, read.lines, read.version) == (OrderState.PAID, "ann", (line,), 2)
    assert await shop.store.unfinished_orders() == ["shop-1"]


async def test_a_main_order_that_the_store_has_forgotten_is_not_missed(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    """It keeps them for 180 days, and the book for ever."""
    await OrderBook(shop.store).change("shop-1", lambda _: TV, event=True)
    await settle(redis_client, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("UPDATE main_orders SET updated_at = updated_at - interval '180 days'")
    await redis_client.delete(order_keys("shop-1").order)
    await all_is_well(shop, book)


async def test_main_orders_that_the_book_has_lost_are_told_it_again(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    orders = OrderBook(shop.store)
    for one in (replace(TV, id=f"shop-{n}") for n in (1, 2, 3)):
        await shop.store.record_order(one.id, 0, one.pack(), unfinished=None, event=True)
    await orders.change("shop-2", lambda known: known and known.cancelled(), event=True)
    # It is used: the version goes on, and there is nothing to tell of that.
    await orders.change("shop-3", lambda known: known and replace(known, campaigns=("x",)), event=False)
    await settle(redis_client, book)
    await all_is_well(shop, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM main_orders WHERE order_id = 'shop-1'")
        connection.execute("UPDATE main_orders SET version = 1, state = 'paid' WHERE order_id = 'shop-2'")
    assert drifts(await reconcile(shop, book)) == {Drift.MAIN_ORDER_UNTOLD: 2}
    assert (await reconcile(shop, book, repair=True)).ok
    await settle(redis_client, book)
    await all_is_well(shop, book)
    told = await book.main_orders_named(["shop-1", "shop-2", "shop-3"])
    assert {name: one.state for name, one in told.items()} == {
        "shop-1": OrderState.PAID,
        "shop-2": OrderState.CANCELLED,
        "shop-3": OrderState.PAID,
    }


async def test_a_campaign_may_be_called_order(redis_client: Redis, book: Book) -> None:
    shop = await open_shop(redis_client, book, sale(id="order"))
    await shop.pay(await shop.reserve("ann"))
    for order_id in ("shop-1", "used", "campaign"):
        await OrderBook(shop.store).change(order_id, lambda _: TV, event=True)
    await settle(redis_client, book)
    await all_is_well(shop, book)


async def test_a_main_order_that_is_on_its_way_is_no_difference(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    await OrderBook(shop.store).change("shop-1", lambda _: TV, event=True)
    looking = asyncio.create_task(reconcile(shop, book, seconds=20))
    source = OutboxSource(Outbox(redis_client, "worker"), StoreDeadLetters(redis_client))
    async with working(source, book):
        found = await looking
    assert not found.differences


async def test_a_main_order_that_came_back_from_before_it_was_used_loses_its_trade_ins_with_it(
    redis_client: Redis, book: Book
) -> None:
    shop = await open_shop(redis_client, book, trade_in())
    orders = OrderDesk(shop.store, Catalog(shop.store, StoreClock()), shop.desk)
    lines = [{"sku": "tv", "amount": 450_000}]
    report = {"order_id": "shop-1", "user": "ann", "lines": lines, "paid_at": "2026-11-11T00:00:00Z"}
    await orders.report(parse(ReportedOrder, report))
    old = await redis_client.dump(order_keys("shop-1").order)
    assert old is not None
    made = await shop.desk.reserve(shop.campaign, "ann", None, "key", Request("soundbar", 1, "shop-1"))
    assert not isinstance(made, Refusal)
    await settle(redis_client, book)
    await redis_client.restore(order_keys("shop-1").order, 0, old, replace=True)
    assert drifts(await reconcile(shop, book)) == {Drift.MAIN_ORDER_BEHIND: 1}
    assert (await reconcile(shop, book, repair=True)).ok
    await orders.cancel("shop-1")
    found = await shop.store.reservation(made.reservation.id)
    assert found is not None
    assert found.state == State.CANCELLED
    await settle(redis_client, book)
    await all_is_well(shop, book)


async def test_what_was_settled_before_records_were_kept_is_told_and_left(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    await shop.reserve("ann")
    await settle(redis_client, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("UPDATE orders SET record = NULL")
    await redis_client.flushall()
    found = await reconcile(shop, book, repair=True)
    (lost,) = [one for one in found.differences if one.drift is Drift.RESERVATION_LOST]
    assert not lost.mended
    assert "before records were kept" in lost.detail


async def test_to_repair_twice_is_harmless(shop: Shop, redis_client: Redis, book: Book) -> None:
    await lively(shop)
    await settle(redis_client, book)
    before = await state(shop)
    await redis_client.flushall()
    await asyncio.gather(*(reconcile(shop, book, repair=True) for _ in range(2)))
    await reconcile(shop, book, repair=True)
    assert await state(shop) == before
    assert not any([await redis_client.xlen(shard.dead) for shard in ALL_SHARDS])


async def test_two_steps_under_one_version_are_told(
    shop: Shop, redis_client: Redis, book: Book, postgres_dsn: str
) -> None:
    """As where two masters went on from the same version, and one was settled."""
    ann = await shop.reserve("ann")
    await shop.desk.cancel(ann.id, "ann")
    await settle(redis_client, book)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("UPDATE orders SET state = 'expired' WHERE reservation_id = %s", [str(ann.id)])
    found = await reconcile(shop, book, repair=True)
    (difference,) = found.differences
    assert (difference.drift, difference.id) == (Drift.RESERVATION_FORKED, str(ann.id))
    assert difference.detail == "version 2 is expired in the book, and cancelled in the store"
    assert not found.ok


async def test_a_record_that_is_gone_comes_back_with_what_it_still_holds(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    """Its claims are still counted: they are given back before they are taken again, so it fits."""
    kept = await shop.reserve("ann")
    gone = [await shop.reserve(user) for user in ("bob", "cat")]
    await shop.pay(gone[0])
    for user in ("dan", "eve"):
        await shop.reserve(user, 1)
    await settle(redis_client, book)
    before = await state(shop)
    reservations = campaign_keys(shop.campaign).reservations
    await redis_client.hdel(reservations, *(one.id.digest for one in gone))
    found = await reconcile(shop, book)
    assert drifts(found)[Drift.RESERVATION_LOST] == 2
    assert f"{shop.campaign} stock/phone" in {one.id for one in found.differences}, "3 claimed, 5 counted"

    found = await reconcile(shop, book, repair=True)
    assert found.ok, found.differences
    assert await state(shop) == before
    assert await shop.store.reservation_ids_of("bob") == [gone[0].id], "once"
    assert await shop.store.reservation_ids_of("ann") == [kept.id]
    await all_is_well(shop, book)


async def test_counters_that_are_wrong_are_moved_by_the_difference(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    await lively(shop)
    await settle(redis_client, book)
    before = await state(shop)
    keys = campaign_keys(shop.campaign)
    await redis_client.hincrby(keys.used, "stock/phone", -2)
    await redis_client.hset(keys.used, "stock/no-such-offer", 7)
    await redis_client.hincrby(keys.tally, "held/phone", 3)
    await redis_client.zincrby(keys.ranking, 5, "nobody")
    found = await reconcile(shop, book)
    assert drifts(found) == {Drift.COUNTER_DIFFERS: 4}
    assert not found.ok

    found = await reconcile(shop, book, repair=True)
    assert drifts(found) == {Drift.COUNTER_DIFFERS: 4}
    assert found.ok
    assert await state(shop) == before
    await all_is_well(shop, book)
