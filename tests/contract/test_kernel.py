"""What every store promises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reservation.ids import ReservationId, digest_of
from reservation.kernel import START, Claim, Gate, Move, Moved, Terms
from reservation.outcomes import ConfigureOutcome, Outcome
from reservation.record import (
    Agreed,
    Facts,
    Payment,
    PaymentStatus,
    Price,
    Refund,
    RefundStatus,
    State,
)
from tests.contract.conftest import Bench

SALE = "sale"
ENDS = 2**50
"""Long after any test."""
FACTS = Facts("flash_sale", Price("CNY", 100, 100)).pack()


async def configure(bench: Bench, revision: int = 0, status: str = "running", **stock: int) -> int:
    caps = {f"stock/{sku}": cap for sku, cap in (stock or {"phone": 10}).items()}
    configured = await bench.store.configure(SALE, revision, status, b"{}", caps, ENDS)
    assert configured.outcome is ConfigureOutcome.CONFIGURED
    return configured.revision


def stock(n: int, sku: str = "phone") -> Claim:
    return Claim(f"stock/{sku}", n, None, Outcome.SOLD_OUT)


def quota(n: int, cap: int) -> Claim:
    return Claim("quota@", n, cap, Outcome.QUOTA_EXCEEDED)


def first(key: str = "k", user: str = "ann", n: int = 1, **changes: Any) -> tuple[Terms, str, str]:
    """Arguments of `reserve`."""
    given: dict[str, Any] = {
        "campaign": SALE,
        "sku": "phone",
        "quantity": n,
        "state": State.HELD,
        "claims": (stock(n),),
        "event": "reserved",
        "facts": FACTS,
        "hold_ms": 60_000,
        "fingerprint": f"phone/{n}",
        "queued": "stock/phone",
    }
    return Terms(**(given | changes)), digest_of(SALE, user, key), user


def then(moved: Moved, state: State, **changes: Any) -> Move:
    found = moved.reservation
    assert found is not None
    given: dict[str, Any] = {
        "id": found.id,
        "version": found.version,
        "user": found.user,
        "sku": found.sku,
        "quantity": found.quantity,
        "state": state,
        "claims": (),
        "event": str(state),
        "facts": FACTS,
    }
    return Move(**(given | changes))


async def used(bench: Bench, *counters: str) -> list[int]:
    standing = await bench.store.standing(SALE, counters or ("stock/phone",))
    return [level.used for level in standing.levels]


async def test_a_granted_reservation_takes_its_claims_and_is_found_everywhere(bench: Bench) -> None:
    await configure(bench)
    before = await bench.store.now_ms()
    moved = await bench.store.reserve(*first(n=3, claims=(quota(3, 5), stock(3))))
    assert moved.outcome is Outcome.MOVED
    reservation = moved.reservation
    assert reservation is not None
    assert (reservation.state, reservation.version, reservation.quantity) == (State.HELD, 1, 3)
    assert reservation.claims == (("quota@", 3), ("stock/phone", 3))
    assert before <= reservation.created_at_ms == reservation.updated_at_ms == moved.now_ms
    assert reservation.deadline_ms == moved.now_ms + 60_000
    assert await used(bench, "stock/phone", "quota@ann") == [3, 3]
    assert await bench.store.reservation(reservation.id) == reservation
    assert await bench.store.reservation_ids_of("ann") == [reservation.id]
    assert (await bench.events())[-1] == ("reserved", str(reservation.id))
    assert (await bench.store.standing(SALE, ["stock/phone"])).tally == {"held/phone": 3}


async def test_stock_is_granted_to_the_last_unit_and_not_one_more(bench: Bench) -> None:
    await configure(bench, phone=10)
    outcomes = [(await bench.store.reserve(*first(f"k{i}", f"u{i}", 3))).outcome for i in range(4)]
    assert outcomes == [Outcome.MOVED] * 3 + [Outcome.SOLD_OUT]
    assert (await bench.store.reserve(*first("k9", "u9", 1))).outcome is Outcome.MOVED
    assert (await bench.store.reserve(*first("k10", "u10", 1))).outcome is Outcome.SOLD_OUT
    assert await used(bench) == [10]


async def test_many_on_the_same_terms_are_served_as_one_after_the_other(bench: Bench) -> None:
    await configure(bench, phone=3)
    terms, *_ = first(claims=(quota(1, 2), stock(1)))
    asked = [("1", "ann"), ("2", "bob"), ("1", "ann"), ("3", "ann"), ("4", "ann"), ("5", "cat"), ("2", "bob")]
    asking = (bench.store.reserve(terms, digest_of(SALE, user, key), user) for key, user in asked)
    moved = await asyncio.gather(*asking)
    assert [one.outcome for one in moved] == [
        Outcome.MOVED, Outcome.MOVED, Outcome.REPLAYED, Outcome.MOVED, Outcome.QUOTA_EXCEEDED,
        Outcome.SOLD_OUT, Outcome.REPLAYED,
    ]  # fmt: skip
    assert moved[2].reservation == moved[0].reservation
    assert moved[0].reservation != moved[3].reservation
    assert await used(bench, "stock/phone", "quota@ann", "quota@bob", "quota@cat") == [3, 2, 1, 0]
    made = {str(moved[place].reservation.id) for place in (0, 1, 3)}  # type: ignore[union-attr]
    assert {name for kind, name in await bench.events() if kind == "reserved"} == made
    assert len(await bench.events()) == 1 + len(made)
    snapshot = await bench.store.snapshot(SALE)
    assert snapshot is not None
    assert {str(one.id) for one in snapshot.reservations} == made
    assert snapshot.tally == {"held/phone": 3}


async def test_a_crowd_on_the_same_terms_gets_the_stock_and_not_one_more(bench: Bench) -> None:
    await configure(bench, phone=700)
    terms, *_ = first()
    asking = (bench.store.reserve(terms, digest_of(SALE, f"u{i}", "k"), f"u{i}") for i in range(1_000))
    outcomes = [one.outcome for one in await asyncio.gather(*asking)]
    assert outcomes == [Outcome.MOVED] * 700 + [Outcome.SOLD_OUT] * 300
    assert await used(bench) == [700]


async def test_a_refusal_changes_nothing(bench: Bench) -> None:
    await configure(bench, phone=1)
    await bench.store.reserve(*first("k1"))
    events, snapshot = await bench.events(), await bench.store.snapshot(SALE)
    refused = await bench.store.reserve(*first("k2", claims=(quota(1, 9), stock(1))))
    assert refused == Moved(Outcome.SOLD_OUT, refused.now_ms, None)
    assert await bench.events() == events
    assert await bench.store.snapshot(SALE) == snapshot


async def test_the_same_key_is_the_same_reservation(bench: Bench) -> None:
    await configure(bench)
    moved = await bench.store.reserve(*first())
    replayed = await bench.store.reserve(*first())
    assert (replayed.outcome, replayed.reservation) == (Outcome.REPLAYED, moved.reservation)
    mismatched = await bench.store.reserve(*first(n=2))
    assert mismatched.outcome is Outcome.IDEMPOTENCY_MISMATCH
    assert await used(bench) == [1]


async def test_a_replay_comes_before_every_refusal(bench: Bench) -> None:
    revision = await configure(bench, phone=1)
    await bench.store.reserve(*first())
    await configure(bench, revision, "closed", phone=1)
    shut = Gate(opens_at_ms=2**50, closes_at_ms=1)
    again = first(gate=shut, revision=1, first_refusal="offer_not_found", last_refusal="not_eligible")
    assert (await bench.store.reserve(*again)).outcome is Outcome.REPLAYED


async def test_refusals_come_in_the_documented_order(bench: Bench) -> None:
    """Every reason applies at first; each is then taken away, and the next one shows."""
    no_campaign = await bench.store.reserve(*first())
    assert no_campaign.outcome is Outcome.STORE_UNAVAILABLE
    revision = await configure(bench, status="closed", phone=0)
    all_wrong = {
        "revision": revision + 7,
        "first_refusal": "offer_not_found",
        "gate": Gate(opens_at_ms=2**50, closes_at_ms=1),
        "last_refusal": "not_eligible",
        "claims": (quota(1, 0), stock(1)),
    }
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.STALE
    all_wrong["revision"] = revision
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.OFFER_NOT_FOUND
    all_wrong["first_refusal"] = ""
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.ENDED  # by its status
    all_wrong["revision"] = await configure(bench, revision, "paused", phone=0)
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.ENDED  # by its window
    all_wrong["gate"] = Gate(opens_at_ms=2**50)
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.NOT_STARTED
    all_wrong["gate"] = Gate()
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.PAUSED
    all_wrong["revision"] = await configure(bench, all_wrong["revision"], "running", phone=0)
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.NOT_ELIGIBLE
    all_wrong["last_refusal"] = ""
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.QUOTA_EXCEEDED
    all_wrong["claims"] = (quota(1, 1), stock(1))
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.SOLD_OUT
    all_wrong["revision"] = await configure(bench, all_wrong["revision"], "running", phone=1)
    assert (await bench.store.reserve(*first(**all_wrong))).outcome is Outcome.MOVED


async def test_a_quota_is_each_users_own(bench: Bench) -> None:
    await configure(bench)
    for user in ("ann", "bob", "a:b", "käthe", "@"):
        assert (
            await bench.store.reserve(*first("1", user, 2, claims=(quota(2, 2),)))
        ).outcome is Outcome.MOVED
        refused = await bench.store.reserve(*first("2", user, 1, claims=(quota(1, 2),)))
        assert refused.outcome is Outcome.QUOTA_EXCEEDED


async def test_giving_up_returns_the_claims_once(bench: Bench) -> None:
    await configure(bench)
    held = await bench.store.reserve(*first(n=4, claims=(quota(4, 4), stock(4))))
    cancelled = await bench.store.move(then(held, State.CANCELLED))
    assert cancelled.outcome is Outcome.MOVED
    assert await used(bench, "stock/phone", "quota@ann") == [0, 0]
    again = await bench.store.move(then(held, State.EXPIRED))
    assert (again.outcome, again.reservation) == (Outcome.CONFLICT, cancelled.reservation)
    twice = await bench.store.move(then(cancelled, State.EXPIRED))
    assert twice.outcome is Outcome.MOVED
    assert await used(bench, "stock/phone", "quota@ann") == [0, 0]


async def test_claims_change_by_their_difference(bench: Bench) -> None:
    await configure(bench, phone=10)
    moved = await bench.store.reserve(*first(n=4))
    moved = await bench.store.move(then(moved, State.HELD, quantity=9, claims=(stock(9),)))
    assert await used(bench) == [9]
    too_many = then(moved, State.HELD, quantity=11, claims=(stock(11),))
    assert (await bench.store.move(too_many)).outcome is Outcome.SOLD_OUT
    moved = await bench.store.move(then(moved, State.HELD, quantity=2, claims=(stock(2), quota(2, 2))))
    assert await used(bench, "stock/phone", "quota@ann") == [2, 2]
    assert (await bench.store.standing(SALE, ["stock/phone"])).tally == {"held/phone": 2}


async def test_what_is_held_is_kept_even_when_its_cap_has_fallen(bench: Bench) -> None:
    await configure(bench)
    held = await bench.store.reserve(*first(n=2, claims=(quota(2, 2), stock(2))))
    kept = (Claim("quota@", 2, 0, Outcome.QUOTA_EXCEEDED), Claim("stock/phone", 2, 0, Outcome.SOLD_OUT))
    assert (await bench.store.move(then(held, State.CONFIRMED, claims=kept))).outcome is Outcome.MOVED
    assert await used(bench, "stock/phone", "quota@ann") == [2, 2]


async def test_ended_stock_can_be_taken_again_only_while_there_is_some(bench: Bench) -> None:
    await configure(bench, phone=1)
    lost = await bench.store.move(then(await bench.store.reserve(*first("1")), State.EXPIRED))
    other = await bench.store.reserve(*first("2", "bob"))
    late = then(lost, State.CONFIRMED, claims=(stock(1),))
    assert (await bench.store.move(late)).outcome is Outcome.SOLD_OUT
    await bench.store.move(then(other, State.CANCELLED))
    assert (await bench.store.move(late)).outcome is Outcome.MOVED
    assert await used(bench) == [1]


async def test_a_move_of_nothing_is_not_found(bench: Bench) -> None:
    await configure(bench)
    missing = ReservationId.derive(SALE, "ann", "k")
    move = Move(missing, 3, "ann", "phone", 1, State.CANCELLED, (), "cancelled", FACTS)
    assert (await bench.store.move(move)).outcome is Outcome.RESERVATION_NOT_FOUND


async def test_windows_are_judged_by_the_stores_clock(bench: Bench) -> None:
    await configure(bench)
    now = await bench.store.now_ms()
    early = await bench.store.reserve(*first("1", gate=Gate(opens_at_ms=now + 60_000)))
    assert early.outcome is Outcome.NOT_STARTED
    opens = now + 40
    await bench.let_pass(40)
    granted = await bench.store.reserve(*first("2", gate=Gate(opens, opens + 60_000)))
    assert granted.outcome is Outcome.MOVED
    assert granted.now_ms >= opens
    late = await bench.store.reserve(*first("3", gate=Gate(now, opens)))
    assert late.outcome is Outcome.ENDED


async def test_what_is_due_is_due_from_its_deadline_until_it_ends(bench: Bench) -> None:
    await configure(bench)
    await bench.store.reserve(*first("2", "bob", hold_ms=60_000))
    assert await bench.store.due(10) == []
    held = await bench.store.reserve(*first("1", hold_ms=30))
    assert held.reservation is not None
    await bench.let_pass(30)
    assert await bench.store.due(10) == [held.reservation.id]
    await bench.store.move(then(held, State.EXPIRED))
    assert await bench.store.due(10) == []


async def test_a_cap_never_falls_below_what_is_taken(bench: Bench) -> None:
    revision = await configure(bench, phone=5, case=5)
    await bench.store.reserve(*first(n=3))
    below = await bench.store.configure(
        SALE, revision, "running", b"{}", {"stock/case": 1, "stock/phone": 2}, ENDS
    )
    assert (below.outcome, below.counter) == (ConfigureOutcome.BELOW_USED, "stock/phone")
    standing = await bench.store.standing(SALE, ["stock/phone", "stock/case"])
    assert [level.cap for level in standing.levels] == [5, 5]
    await configure(bench, revision, phone=3)
    assert (await bench.store.reserve(*first("2", "bob"))).outcome is Outcome.SOLD_OUT


async def test_a_change_is_made_on_the_revision_it_was_decided_on(bench: Bench) -> None:
    revision = await configure(bench)
    newer = await configure(bench, revision, "paused")
    stale = await bench.store.configure(SALE, revision, "running", b"{}", {}, ENDS)
    assert (stale.outcome, stale.revision) == (ConfigureOutcome.CONFLICT, newer)
    stored = await bench.store.campaign(SALE)
    assert stored is not None
    assert (stored.revision, stored.status) == (newer, "paused")
    assert await bench.store.campaign("another") is None


async def test_changes_are_told_once_to_each_who_asks_from_where_they_were(bench: Bench) -> None:
    revision = await configure(bench)
    seen = await bench.store.changes(START)
    assert seen.campaigns == (SALE,)
    assert (await bench.store.changes(seen.cursor)).campaigns == ()
    await configure(bench, revision, "paused")
    assert (await bench.store.changes(seen.cursor)).campaigns == (SALE,)


async def test_every_move_and_change_leaves_one_event(bench: Bench) -> None:
    await configure(bench)
    held = await bench.store.reserve(*first())
    await bench.store.reserve(*first())
    await bench.store.move(then(held, State.CANCELLED))
    await bench.store.move(then(held, State.EXPIRED))
    assert held.reservation is not None
    name = str(held.reservation.id)
    assert await bench.events() == [("campaign_changed", SALE), ("reserved", name), ("cancelled", name)]


async def test_concurrent_moves_of_one_version_are_one_move(bench: Bench) -> None:
    await configure(bench)
    held = await bench.store.reserve(*first(n=2))
    ends = [State.CANCELLED, State.EXPIRED, State.CONFIRMED] * 10
    moves = [then(held, end, claims=(stock(2),) if end is State.CONFIRMED else ()) for end in ends]
    outcomes = [moved.outcome for moved in await asyncio.gather(*map(bench.store.move, moves))]
    assert sorted(outcomes) == sorted([Outcome.MOVED] + [Outcome.CONFLICT] * 29)


async def test_the_index_is_bounded_and_keeps_the_newest(bench: Bench) -> None:
    await configure(bench, phone=500)
    for i in range(103):
        await bench.store.reserve(*first(f"k{i}"))
    ids = await bench.store.reservation_ids_of("ann")
    assert ids == [ReservationId.derive(SALE, "ann", f"k{i}") for i in range(102, 2, -1)]


@pytest.mark.parametrize("text", ["käthe", "用户", "a b", "a\tb", "🧨", 'q"uote', "x" * 128])
async def test_a_user_may_have_any_name(bench: Bench, text: str) -> None:
    await configure(bench)
    moved = await bench.store.reserve(*first(user=text, claims=(quota(1, 1), stock(1))))
    assert moved.reservation is not None
    assert moved.reservation.user == text
    assert await bench.store.reservation_ids_of(text) == [moved.reservation.id]


async def test_facts_come_back_as_they_were(bench: Bench) -> None:
    await configure(bench)
    facts = Facts("flash_sale", Price("CNY", 10**12, 10**18, 1, 2, (("spend-and-save", 3),), 4))
    moved = await bench.store.reserve(*first(facts=facts.pack()))
    assert moved.reservation is not None
    assert moved.reservation.facts == facts
    assert Facts.unpack(facts.pack()) == facts


@pytest.mark.parametrize(
    "facts",
    [
        Facts("flash_sale", Price("CNY", 1, 1)),
        Facts("presale", Price("CNY", 1, 2, 1, 1, (), 0)),
        Facts(
            "presale",
            Price("CNY", 100, 300, 30, 60, (("spend_and_save", 7),), 233),
            {"deposit": Payment("deposit", 20, PaymentStatus.SUCCEEDED, 5, "ref")},
            {"deposit.refund": Refund("deposit.refund", 3, RefundStatus.PENDING, "amended", 6)},
            ("x",),
            (("case", 2),),
            "order-1",
            Agreed(2, Price("CNY", 100, 200, 20, 40, (), 160)),
            4,
            ("opened",),
        ),
    ],
)
def test_facts_are_packed_without_loss(facts: Facts) -> None:
    assert Facts.unpack(facts.pack()) == facts
