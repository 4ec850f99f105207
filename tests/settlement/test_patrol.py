"""How store and book differ is a gauge, which is 0 when all is well."""

from __future__ import annotations

import math

import ormsgpack
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.ids import digest_of
from reservation.keys import campaign_keys
from reservation.order_book import OrderBook
from settlement.book import Book
from settlement.patrol import Patrol
from settlement.reconcile import Drift, Reconciler
from tests.contract.test_kernel import first
from tests.settlement.conftest import Shop
from tests.settlement.test_reconcile import TV, lively, lose, reconcile, settle
from tests.stack import eventually

PAGE_KEYS = 500
"""So many keys are looked through at a time for main orders."""


def told() -> dict[Drift, float]:
    """What the gauge says, where it is not 0."""
    name = "doorbuster_reconciliation_differences"
    found = {drift: REGISTRY.get_sample_value(name, {"drift": drift}) for drift in Drift}
    assert None not in found.values(), "it is there from the beginning"
    return {drift: value for drift, value in found.items() if value}


def looking(shop: Shop, book: Book, catalog: Catalog, *, differences_max: int) -> Patrol:
    """As the sweeper has it, but that it waits for nothing."""
    reconciler = Reconciler(
        shop.store, book, settle_seconds_max=0, differences_max=differences_max, counts=False
    )
    return Patrol(reconciler, catalog.all)


async def test_what_differs_is_counted_until_it_is_mended(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    catalog = Catalog(shop.store, StoreClock())
    patrol = Patrol(
        Reconciler(shop.store, book, settle_seconds_max=0, differences_max=100, counts=False), catalog.all
    )
    assert all(map(math.isnan, told().values()))
    assert told().keys() == {*Drift}, "it has not looked yet, and so nothing is known to be well"
    await lively(shop)
    await settle(redis_client, book)
    await catalog.refresh()
    assert await patrol.round() == []
    assert told() == {}

    held = await shop.reserve("eve")
    await patrol.round()
    assert told() == {Drift.RESERVATION_UNTOLD: 1}, "it waited for as long as it was told to"
    await settle(redis_client, book)
    await patrol.round()
    assert told() == {}

    await lose(redis_client)
    assert len(await patrol.round()) == 5
    assert told() == {Drift.RESERVATION_LOST: 5}
    await reconcile(shop, book, repair=True)
    await settle(redis_client, book)
    await patrol.round()
    assert told() == {}
    assert await shop.store.reservation(held.id) is not None


async def test_what_nobody_can_read_stops_neither_the_patrol_nor_who_ends_what_is_due(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    catalog = Catalog(shop.store, StoreClock())
    await catalog.refresh()
    patrol = looking(shop, book, catalog, differences_max=100)
    terms, *_ = first(campaign=shop.campaign, hold_ms=1)
    made = [await shop.store.reserve(terms, digest_of(shop.campaign, user, "k"), user) for user in "ab"]
    ids = [one.reservation.id for one in made if one.reservation is not None]
    await eventually(lambda: shop.store.due(10), lambda due: due == ids)
    await settle(redis_client, book)
    reservations = campaign_keys(shop.campaign).reservations
    packed = await redis_client.hget(reservations, ids[0].digest)  # type: ignore[misc]
    for unreadable in (b"\xc1", b"\x01", b"\x90", ormsgpack.packb(["held", 1, *range(20)])):
        await redis_client.hset(reservations, ids[0].digest, unreadable)  # type: ignore[misc]
        assert await shop.store.due(10) == ids
        assert await patrol.step() == 0
        assert all(map(math.isnan, told().values()))
    await redis_client.hset(reservations, ids[0].digest, packed)  # type: ignore[misc]
    await patrol.step()
    assert told() == {}


async def test_where_very_much_differs_it_does_not_look_at_all_of_it(
    shop: Shop, redis_client: Redis, book: Book
) -> None:
    catalog = Catalog(shop.store, StoreClock())
    await catalog.refresh()
    await lively(shop)
    patrol = Patrol(
        Reconciler(shop.store, book, settle_seconds_max=0, differences_max=2, counts=False), catalog.all
    )
    for number in range(2 * PAGE_KEYS):
        await OrderBook(shop.store).change(f"shop-{number}", lambda _: TV, event=True)
    found = await patrol.round()
    assert len(found) >= 2
    assert 2 <= told()[Drift.MAIN_ORDER_UNTOLD] < 2 * PAGE_KEYS
    assert Drift.RESERVATION_UNTOLD in told()
    await settle(redis_client, book)
    assert await patrol.round() == []
