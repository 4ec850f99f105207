"""A fenced store takes nothing, and loses nothing by it."""

from __future__ import annotations

import pytest

from reservation.order_book import OrderBook
from reservation.outcomes import Outcome, RestateOutcome, RestoreOutcome, StoreUnavailable
from reservation.record import State
from tests.contract.conftest import Bench
from tests.contract.test_kernel import SALE, configure, first, stock, then
from tests.contract.test_restore import ANN, HELD, PAID, restore


async def test_a_fenced_store_takes_nothing_until_the_fence_is_lifted(bench: Bench) -> None:
    await configure(bench)
    made = await bench.store.reserve(*first())
    assert await bench.store.fenced() == ""
    await bench.store.fence("it has lost something")
    assert await bench.store.fenced() == "it has lost something"
    terms, _, _ = first()
    before = await bench.events()
    assert (await bench.store.reserve(terms, "digest-of-another", "bob")).outcome is Outcome.STORE_UNAVAILABLE
    assert (
        await bench.store.move(then(made, State.CONFIRMED, claims=(stock(1),)))
    ).outcome is Outcome.STORE_UNAVAILABLE
    assert (await bench.store.take_place(terms, "bob", b"")).outcome is Outcome.STORE_UNAVAILABLE
    assert await bench.events() == before
    await bench.store.lift()
    assert await bench.store.fenced() == ""
    assert (await bench.store.move(then(made, State.CONFIRMED, claims=(stock(1),)))).outcome is Outcome.MOVED
    assert (await bench.store.reserve(terms, "digest-of-another", "bob")).outcome is Outcome.MOVED


async def test_who_retries_finds_what_was_made_behind_the_fence_too(bench: Bench) -> None:
    await configure(bench)
    made = await bench.store.reserve(*first())
    await bench.store.fence("it has lost something")
    again = await bench.store.reserve(*first())
    assert again.outcome is Outcome.REPLAYED
    assert again.reservation == made.reservation


async def test_a_fenced_store_does_not_say_that_something_never_was(bench: Bench) -> None:
    await configure(bench)
    await bench.store.fence("it has lost something")
    with pytest.raises(StoreUnavailable):
        await bench.store.reservation(ANN)
    assert await bench.store.reservations([ANN]) == [None], "but for who brings back what is not there"
    assert await bench.store.restate(ANN, "restated") is RestateOutcome.ABSENT
    with pytest.raises(StoreUnavailable):
        await bench.store.reservation_ids_of("ann")
    with pytest.raises(StoreUnavailable):
        await bench.store.places(SALE, "ann", ["phone"])
    await bench.store.lift()
    assert await bench.store.reservation(ANN) is None
    assert await bench.store.reservation_ids_of("ann") == []
    assert await bench.store.places(SALE, "ann", ["phone"]) == {}


async def test_a_campaign_that_is_not_there_stands_at_nothing_and_says_so(bench: Bench) -> None:
    await configure(bench)
    assert (await bench.store.standing(SALE, ["stock/phone"])).known
    assert not (await bench.store.standing("another", ["stock/phone"])).known


async def test_main_orders_wait_behind_the_fence_but_for_repair(bench: Bench) -> None:
    store = bench.store
    assert await store.record_order("shop-1", 0, b"{}", unfinished=None, event=True)
    await store.fence("it has lost something")
    with pytest.raises(StoreUnavailable):
        await store.record_order("shop-1", 1, b"{}", unfinished=True, event=True)
    with pytest.raises(StoreUnavailable):
        await store.record_order("shop-2", 0, b"{}", unfinished=None, event=True)
    with pytest.raises(StoreUnavailable):
        await OrderBook(store).read("shop-2")
    assert await store.record_order("shop-2", 0, b"{}", unfinished=True, event=False, above=4)
    await store.lift()
    assert await store.record_order("shop-1", 1, b"{}", unfinished=True, event=True)
    assert await store.record_order("shop-2", 5, b"{}", unfinished=False, event=True)


async def test_what_was_lost_is_brought_back_behind_the_fence(bench: Bench) -> None:
    await configure(bench)
    await bench.store.fence("it has lost something")
    assert await restore(bench, HELD) is RestoreOutcome.RESTORED
    assert await restore(bench, PAID) is RestoreOutcome.RESTORED
