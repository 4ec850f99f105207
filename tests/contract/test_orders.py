"""Main orders, what they grant, and who spends most: what every store promises."""

from __future__ import annotations

import asyncio

from reservation.ids import ReservationId
from reservation.kernel import RANKED, UNCAPPED, Claim, Moved, optional
from reservation.outcomes import GrantOutcome, Outcome
from reservation.record import State
from tests.contract.conftest import Bench
from tests.contract.test_kernel import ENDS, SALE, configure, first, then


async def test_an_order_changes_on_one_version_of_it(bench: Bench) -> None:
    store = bench.store
    assert await store.order("o-1") is None
    assert await store.record_order("o-1", 0, b'{"n":1}', unfinished=False, event=True)
    assert not await store.record_order("o-1", 0, b'{"n":2}', unfinished=True, event=True)
    assert await store.unfinished_orders() == []
    writes = [store.record_order("o-1", 1, b'{"n":3}', unfinished=True, event=False) for _ in range(10)]
    assert sum(await asyncio.gather(*writes)) == 1
    found = await store.order("o-1")
    assert found is not None
    assert (found.version, found.body) == (2, b'{"n":3}')
    assert await bench.events() == [("main_order_changed", "o-1")]


async def test_an_unfinished_order_is_found_until_it_is_finished(bench: Bench) -> None:
    store = bench.store
    await store.record_order("o-1", 0, b"{}", unfinished=True, event=True)
    await store.record_order("o-2", 0, b"{}", unfinished=True, event=True)
    await store.record_order("o-1", 1, b"{}", unfinished=None, event=False)
    assert await store.unfinished_orders() == ["o-1", "o-2"]
    assert not await store.record_order("o-1", 1, b"{}", unfinished=False, event=False), (
        "it has changed since"
    )
    await store.record_order("o-1", 2, b"{}", unfinished=False, event=False)
    assert await store.unfinished_orders() == ["o-2"]


async def test_caps_are_granted_by_the_newest_word(bench: Bench) -> None:
    revision = await configure(bench)
    store, caps = bench.store, {"entitlement:o-1": 2}
    claim = (Claim("entitlement:o-1", 1, None, Outcome.NOT_ELIGIBLE),)
    assert (await store.reserve(*first("1", claims=claim))).outcome is Outcome.NOT_ELIGIBLE
    assert await store.grant(SALE, revision + 1, "o-1", 1, caps) is GrantOutcome.STALE
    assert await store.grant(SALE, revision, "o-1", 3, caps) is GrantOutcome.GRANTED
    assert await store.grant(SALE, revision, "o-1", 3, caps) is GrantOutcome.GRANTED
    assert (await store.reserve(*first("1", claims=claim))).outcome is Outcome.MOVED
    assert await store.grant(SALE, revision, "o-1", 4, {"entitlement:o-1": 0}) is GrantOutcome.GRANTED
    assert await store.grant(SALE, revision, "o-1", 3, caps) is GrantOutcome.OUTDATED
    assert (await store.reserve(*first("2", claims=claim))).outcome is Outcome.NOT_ELIGIBLE
    assert await store.grant("another", 1, "o-1", 9, caps) is GrantOutcome.STALE


def spent(amount: int) -> tuple[Claim, ...]:
    return (Claim(RANKED, amount, UNCAPPED, Outcome.SOLD_OUT),)


async def pay(bench: Bench, key: str, user: str, amount: int) -> Moved:
    made = await bench.store.reserve(*first(key, user, claims=()))
    paid = await bench.store.move(then(made, State.CONFIRMED, claims=spent(amount)))
    assert paid.outcome is Outcome.MOVED
    return paid


async def test_users_are_ranked_by_what_they_claim(bench: Bench) -> None:
    await configure(bench)
    for key, user, amount in (("1", "ann", 5), ("2", "bob", 7), ("3", "ann", 3), ("4", "cat", 7)):
        await pay(bench, key, user, amount)
    ranking = await bench.store.ranking(SALE, "ann", 2)
    assert (ranking.final, ranking.entries, ranking.own, ranking.above) == (
        False, (("ann", 8), ("cat", 7)), 8, 0
    )  # fmt: skip
    ranking = await bench.store.ranking(SALE, "bob", 10)
    assert (ranking.entries[1:], ranking.own, ranking.above) == ((("cat", 7), ("bob", 7)), 7, 1)
    nobody = await bench.store.ranking(SALE, "eve", 1)
    assert (nobody.own, nobody.above) == (None, 0)
    snapshot = await bench.store.snapshot(SALE)
    assert snapshot is not None
    assert {name: n for name, n in snapshot.used.items() if name.startswith("#")} == {
        f"{RANKED}ann": 8, f"{RANKED}bob": 7, f"{RANKED}cat": 7
    }  # fmt: skip


async def test_what_goes_back_to_nothing_is_ranked_no_more(bench: Bench) -> None:
    await configure(bench)
    paid = await pay(bench, "1", "ann", 5)
    await bench.store.move(then(paid, State.CANCELLED))
    assert (await bench.store.ranking(SALE, "ann", 10)).entries == ()


async def test_what_is_beyond_exact_counting_is_left_out_and_refuses_nothing(bench: Bench) -> None:
    await configure(bench)
    made = {}
    for key, amount in (("1", UNCAPPED), ("2", UNCAPPED - 1), ("3", 3), ("4", UNCAPPED)):
        held = await bench.store.reserve(*first(key, "ann", claims=()))
        claims = (Claim(RANKED, amount, UNCAPPED, optional("spend")),)
        made[key] = await bench.store.move(then(held, State.CONFIRMED, claims=claims))
        assert made[key].outcome is Outcome.MOVED
    assert (await bench.store.ranking(SALE, "ann", 1)).own == UNCAPPED, "only the first could be counted"
    for moved in made.values():
        await bench.store.move(then(moved, State.CANCELLED))
    assert (await bench.store.ranking(SALE, "ann", 10)).entries == ()


async def test_from_its_end_on_a_ranking_stands_and_an_end_moved_away_lets_it_live(bench: Bench) -> None:
    store = bench.store

    async def ends(at: int, revision: int) -> int:
        configured = await store.configure(SALE, revision, "running", b"{}", {"stock/phone": 9}, at)
        return configured.revision

    revision = await ends(ENDS, 0)
    await pay(bench, "1", "ann", 5)
    revision = await ends(await store.now_ms() + 60, revision)
    await bench.let_pass(60)
    await pay(bench, "2", "bob", 9)
    ranking = await store.ranking(SALE, "bob", 10)
    assert (ranking.final, ranking.entries, ranking.own) == (True, (("ann", 5),), None)
    await ends(await store.now_ms() + 60_000, revision)
    ranking = await store.ranking(SALE, "bob", 10)
    assert (ranking.final, ranking.entries) == (False, (("bob", 9), ("ann", 5)))


async def test_a_scan_sees_every_reservation(bench: Bench) -> None:
    await configure(bench)
    asked = [first(f"k{i}", f"u{i}", claims=()) for i in range(1200)]
    await asyncio.gather(*(bench.store.reserve(*one) for one in asked))
    found, cursor = set(), 0
    while True:
        cursor, some = await bench.store.scan(SALE, cursor)
        found |= {one.id for one in some}
        if cursor == 0:
            break
    assert found == {ReservationId(SALE, digest) for _, digest, _ in asked}


async def test_the_ids_of_all_main_orders_are_found(bench: Bench) -> None:
    wanted = {f"shop-{n}:a" for n in range(300)}
    for name in wanted:
        assert await bench.store.record_order(name, 0, b"{}", unfinished=None, event=False)
    found = {name async for some in bench.store.order_ids() for name in some}
    assert found == wanted
