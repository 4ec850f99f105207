"""What the book has and the store has lost comes back, once, and never beyond a cap."""

from __future__ import annotations

import pytest

from reservation.ids import ReservationId, digest_of
from reservation.kernel import RANKED, UNCAPPED, Claim
from reservation.outcomes import ConfigureOutcome, Outcome, RestateOutcome, RestoreOutcome
from reservation.record import Record, State
from tests.contract.conftest import Bench
from tests.contract.test_kernel import ENDS, FACTS, SALE, configure, first, quota, stock, then, used

ANN = ReservationId(SALE, digest_of(SALE, "ann", "k"))
LONG_AGO = 1_000
PAID = Record(
    state=State.CONFIRMED,
    version=3,
    user="ann",
    sku="phone",
    quantity=2,
    claims=(("stock/phone", 2), ("quota@", 2), (RANKED, 500)),
    created_at=LONG_AGO,
    updated_at=LONG_AGO + 1,
    deadline=0,
    fingerprint="phone/2",
    facts=FACTS.decode(),
)
HELD = PAID._replace(
    state=State.HELD,
    version=1,
    claims=(("stock/phone", 2), ("quota@", 2)),
    updated_at=LONG_AGO,
    deadline=LONG_AGO + 60_000,
)


async def restore(bench: Bench, record: Record, reservation_id: ReservationId = ANN) -> RestoreOutcome:
    return (await bench.store.restore(reservation_id, record)).outcome


async def test_what_was_lost_is_there_again_as_if_it_had_never_gone(bench: Bench) -> None:
    await configure(bench)
    assert await restore(bench, PAID) is RestoreOutcome.RESTORED
    found = await bench.store.reservation(ANN)
    assert found is not None
    assert (found.state, found.version, found.user, found.claims) == (State.CONFIRMED, 3, "ann", PAID.claims)
    assert (found.created_at_ms, found.updated_at_ms) == (LONG_AGO, LONG_AGO + 1)
    assert await used(bench, "stock/phone", "quota@ann") == [2, 2]
    assert dict((await bench.store.standing(SALE, ["stock/phone"])).tally) == {"confirmed/phone": 2}
    assert await bench.store.reservation_ids_of("ann") == [ANN]
    assert (await bench.store.ranking(SALE, None, 10)).entries == (("ann", 500),)
    assert await bench.events() == [("campaign_changed", SALE)], "the book has it already"


async def test_a_retry_finds_what_was_restored(bench: Bench) -> None:
    await configure(bench)
    await restore(bench, PAID)
    again = await bench.store.reserve(*first(n=2, claims=(stock(2), quota(2, 3))))
    assert (again.outcome, again.reservation.version) == (Outcome.REPLAYED, 3)  # type: ignore[union-attr]
    other = await bench.store.reserve(*first(n=1))
    assert other.outcome is Outcome.IDEMPOTENCY_MISMATCH
    more = await bench.store.reserve(*first("k2", n=2, claims=(stock(2), quota(2, 3))))
    assert more.outcome is Outcome.QUOTA_EXCEEDED


async def test_a_hold_that_was_restored_runs_out_when_it_would_have(bench: Bench) -> None:
    await configure(bench)
    await restore(bench, HELD)
    assert await bench.store.due(10) == [ANN]
    await restore(bench, PAID)
    assert await bench.store.due(10) == []


async def test_what_the_store_has_or_has_further_is_left_alone(bench: Bench) -> None:
    await configure(bench)
    await restore(bench, PAID)
    assert await restore(bench, PAID) is RestoreOutcome.UNCHANGED
    assert await restore(bench, HELD) is RestoreOutcome.UNCHANGED
    assert await used(bench, "stock/phone", "quota@ann") == [2, 2]


async def test_of_what_the_store_has_not_as_far_only_the_difference_is_taken(bench: Bench) -> None:
    await configure(bench)
    held = await bench.store.reserve(*first(n=2, claims=(stock(2), quota(2, 3))))
    assert await restore(bench, PAID) is RestoreOutcome.RESTORED
    assert await used(bench, "stock/phone", "quota@ann") == [2, 2]
    tally = (await bench.store.standing(SALE, ["stock/phone"])).tally
    assert {name: n for name, n in tally.items() if n} == {"confirmed/phone": 2}
    assert await bench.store.reservation_ids_of("ann") == [ANN], "once"
    late = await bench.store.move(then(held, State.EXPIRED))
    assert late.outcome is Outcome.CONFLICT
    gone = PAID._replace(state=State.REFUNDED, version=4, claims=())
    assert await restore(bench, gone) is RestoreOutcome.RESTORED
    assert await used(bench, "stock/phone", "quota@ann") == [0, 0]
    assert (await bench.store.ranking(SALE, None, 10)).entries == ()


async def test_what_was_sold_again_is_not_sold_twice(bench: Bench) -> None:
    await configure(bench, phone=3)
    await bench.store.reserve(*first("k", "bob", n=2))
    before = await bench.events()
    assert await bench.store.restore(ANN, PAID) == (RestoreOutcome.OVER_CAP, "stock/phone")
    assert await bench.store.reservation(ANN) is None
    assert await used(bench, "stock/phone", "quota@ann") == [2, 0]
    assert await bench.store.reservation_ids_of("ann") == []
    assert await bench.events() == before


async def test_a_move_goes_on_from_what_was_restored(bench: Bench) -> None:
    await configure(bench)
    await restore(bench, HELD)
    found = await bench.store.reservation(ANN)
    assert found is not None
    spend = Claim(RANKED, 500, UNCAPPED, Outcome.QUOTA_EXCEEDED)
    held = then(
        await bench.store.reserve(*first(n=2)), State.CONFIRMED, claims=(stock(2), quota(2, 3), spend)
    )
    moved = await bench.store.move(held)
    assert (moved.outcome, moved.reservation.version) == (Outcome.MOVED, 2)  # type: ignore[union-attr]
    assert await used(bench, "stock/phone", "quota@ann") == [2, 2]


async def test_nothing_comes_back_into_a_campaign_that_is_not_there(bench: Bench) -> None:
    assert await restore(bench, PAID) is RestoreOutcome.ABSENT
    assert await bench.store.reservation(ANN) is None


@pytest.mark.parametrize(("above", "revision"), [(0, 1), (7, 8)])
async def test_a_revision_that_the_book_has_is_never_given_again(
    bench: Bench, above: int, revision: int
) -> None:
    made = await bench.store.configure(SALE, 0, "paused", b"{}", {"stock/phone": 3}, ENDS, above)
    assert (made.outcome, made.revision) == (ConfigureOutcome.CONFIGURED, revision)
    again = await bench.store.configure(SALE, revision, "running", b"{}", {"stock/phone": 3}, ENDS, above)
    assert again.revision == revision + 1


async def test_the_book_is_told_once_more_what_the_store_has(bench: Bench) -> None:
    await configure(bench)
    held = await bench.store.reserve(*first(n=2))
    before = await bench.events()
    assert await bench.store.restate(ANN, "restated") is RestateOutcome.RESTATED
    assert await bench.events() == [*before, ("restated", str(ANN))]
    assert await bench.store.reservation(ANN) == held.reservation, "nothing else changes"
    absent = ReservationId(SALE, digest_of(SALE, "bob", "k"))
    assert await bench.store.restate(absent, "restated") is RestateOutcome.ABSENT


async def test_a_main_orders_version_that_the_book_has_is_never_given_again(bench: Bench) -> None:
    store = bench.store
    assert await store.record_order("o", 0, b"{}", unfinished=True, event=False, above=7)
    assert (await store.order("o")) == (8, b"{}")
    assert await store.unfinished_orders() == ["o"]
    assert not await store.record_order("o", 7, b"{}", unfinished=False, event=False)
    assert await store.record_order("o", 8, b"{}", unfinished=False, event=False, above=7)
    assert (await store.order("o")) == (9, b"{}")
