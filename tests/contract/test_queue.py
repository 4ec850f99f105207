"""Standing in line: what every store promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reservation.kernel import Claim, Gate, Place
from reservation.outcomes import Outcome, PlaceOutcome
from tests.contract.conftest import Bench
from tests.contract.test_kernel import SALE, configure, first, quota, stock, then


async def place(bench: Bench, user: str, n: int = 1, **changes: Any) -> tuple[str, int]:
    found = await bench.store.take_place(first(n=n, **changes)[0], user, b'{"tier":null}')
    return str(found.outcome), found.position


async def served(bench: Bench, user: str, n: int = 1, **changes: Any) -> Outcome:
    moved = await bench.store.reserve(*first(f"served-{user}", user, n, serves=True, **changes))
    return moved.outcome


async def test_nobody_stands_in_line_for_what_can_be_had(bench: Bench) -> None:
    await configure(bench, phone=2)
    assert await place(bench, "ann", 2) == (Outcome.WRONG_STATE, 0)
    await bench.store.reserve(*first("1", "bob"))
    assert await place(bench, "ann", 1) == (Outcome.WRONG_STATE, 0)
    assert await place(bench, "ann", 2) == (PlaceOutcome.PLACED, 1)
    assert await place(bench, "cat", 1) == (PlaceOutcome.PLACED, 2), "one stands in line behind another"
    assert await place(bench, "dan", 3) == (PlaceOutcome.PLACED, 3), "there may be more one day"
    assert await bench.store.leave_place(SALE, "phone", "dan")
    assert await bench.store.queues() == [(SALE, "phone")]
    assert await bench.store.queue(SALE, "phone", 10) == [
        Place("ann", 2, b'{"tier":null}'),
        Place("cat", 1, b'{"tier":null}'),
    ]
    assert (await bench.store.standing(SALE, ["stock/phone"])).tally["waiting/phone"] == 3


async def test_the_line_refuses_what_a_reservation_would_be_refused_for(bench: Bench) -> None:
    no_campaign = await bench.store.take_place(first()[0], "ann", b"")
    assert no_campaign.outcome is Outcome.STORE_UNAVAILABLE
    revision = await configure(bench, phone=0)
    wrong: dict[str, Any] = {
        "revision": revision + 1,
        "first_refusal": "offer_not_found",
        "gate": Gate(opens_at_ms=2**50, closes_at_ms=1),
        "last_refusal": "not_eligible",
        "claims": (quota(1, 0), stock(1)),
    }
    assert (await place(bench, "ann", **wrong))[0] == Outcome.STALE
    wrong["revision"] = revision
    assert (await place(bench, "ann", **wrong))[0] == Outcome.OFFER_NOT_FOUND
    wrong["first_refusal"] = ""
    assert (await place(bench, "ann", **wrong))[0] == Outcome.ENDED
    wrong["gate"] = Gate(opens_at_ms=2**50)
    assert (await place(bench, "ann", **wrong))[0] == Outcome.NOT_STARTED
    wrong["gate"] = Gate()
    assert (await place(bench, "ann", **wrong))[0] == Outcome.NOT_ELIGIBLE
    wrong["last_refusal"] = ""
    assert (await place(bench, "ann", **wrong))[0] == Outcome.QUOTA_EXCEEDED
    assert await bench.store.queues() == []


async def test_a_place_is_kept_moved_and_left(bench: Bench) -> None:
    revision = await configure(bench, phone=3)
    await bench.store.reserve(*first("1", "bob", 3))
    assert await place(bench, "ann") == (PlaceOutcome.PLACED, 1)
    assert await place(bench, "cat") == (PlaceOutcome.PLACED, 2)
    assert await place(bench, "ann") == (PlaceOutcome.PLACED, 1)
    assert await place(bench, "ann", 2) == (PlaceOutcome.PLACED, 2)
    found = await bench.store.places(SALE, "ann", ["phone", "case"])
    assert found == {"phone": (2, Place("ann", 2, b'{"tier":null}'))}
    assert await bench.store.leave_place(SALE, "phone", "ann")
    assert not await bench.store.leave_place(SALE, "phone", "ann")
    assert await bench.store.places(SALE, "ann", ["phone"]) == {}
    await configure(bench, revision, "closed", phone=3)
    assert await bench.store.leave_place(SALE, "phone", "cat"), "also when all is over"
    assert await bench.store.queues() == []
    assert (await bench.store.standing(SALE, ["stock/phone"])).tally["waiting/phone"] == 0


async def test_while_somebody_waits_nobody_else_gets_more(bench: Bench) -> None:
    await configure(bench, phone=3)
    one, other = [await bench.store.reserve(*first(key, "bob")) for key in "12"]
    third = await bench.store.reserve(*first("3", "dan"))
    assert await place(bench, "ann") == (PlaceOutcome.PLACED, 1)
    await bench.store.move(then(one, "cancelled", queued="stock/phone"))
    assert (await bench.store.reserve(*first("4", "eve"))).outcome is Outcome.SOLD_OUT
    more = then(other, "held", quantity=2, claims=(stock(2),), queued="stock/phone")
    assert (await bench.store.move(more)).outcome is Outcome.SOLD_OUT
    late = then(third, "confirmed", claims=(stock(1),), queued="stock/phone")
    assert (await bench.store.move(late)).outcome is Outcome.MOVED, "what is held already is kept"
    assert await served(bench, "ann") is Outcome.MOVED
    assert await bench.store.queues() == []
    assert (await bench.store.reserve(*first("5", "eve"))).outcome is Outcome.SOLD_OUT


async def test_what_does_for_nobody_in_line_is_for_everybody(bench: Bench) -> None:
    """Or else who asks for very many would stop the sale."""
    revision = await configure(bench, phone=2)
    await bench.store.reserve(*first("1", "bob"))
    assert await place(bench, "big", 100) == (PlaceOutcome.PLACED, 1)
    assert (await bench.store.reserve(*first("2", "eve"))).outcome is Outcome.MOVED
    revision = await configure(bench, revision, phone=3)
    assert await place(bench, "ann", 1) == (PlaceOutcome.PLACED, 2)
    assert (await bench.store.reserve(*first("3", "eve"))).outcome is Outcome.SOLD_OUT, "it would do for ann"
    assert await served(bench, "ann") is Outcome.MOVED


async def test_the_line_is_served_in_order(bench: Bench) -> None:
    revision = await configure(bench, phone=2)
    await bench.store.reserve(*first("1", "bob", 2))
    for user, n in (("ann", 2), ("cat", 1), ("dan", 1)):
        await place(bench, user, n)
    assert await served(bench, "ann", 2) is Outcome.SOLD_OUT, "it is her turn, and there is nothing"
    revision = await configure(bench, revision, phone=3)
    assert await served(bench, "dan") is Outcome.CONFLICT, "the unit would do for who is ahead"
    assert await served(bench, "eve") is Outcome.CONFLICT, "who has no place is not served"
    assert await served(bench, "cat") is Outcome.MOVED, "over the head of who wants more than there is"
    await configure(bench, revision, phone=5)
    assert await served(bench, "dan") is Outcome.CONFLICT
    assert await served(bench, "ann", 2) is Outcome.MOVED
    again = await bench.store.reserve(*first("served-ann", "ann", 2, serves=True))
    assert again.outcome is Outcome.REPLAYED, "a place is served once"
    assert [one.user for one in await bench.store.queue(SALE, "phone", 10)] == ["dan"]


async def test_a_refused_service_keeps_the_place(bench: Bench) -> None:
    revision = await configure(bench, phone=1)
    await bench.store.reserve(*first("1", "bob"))
    await place(bench, "ann")
    await configure(bench, revision, phone=2)
    full = (quota(1, 0), stock(1))
    assert await served(bench, "ann", claims=full) is Outcome.QUOTA_EXCEEDED
    assert [one.user for one in await bench.store.queue(SALE, "phone", 10)] == ["ann"]


async def test_optional_claims_are_taken_together_or_left_out(bench: Bench) -> None:
    await configure(bench, phone=10)

    def with_gift(key: str, user: str) -> Any:
        gift = (Claim("gift/p/g", 1, 2, "?g"), Claim("gift/p/g@", 1, 1, "?g"))
        other = (Claim("gift/p/h", 1, 5, "?h"),)
        return first(key, user, claims=(stock(1), *gift, *other))

    claims = []
    for key, user in (("1", "ann"), ("2", "ann"), ("3", "bob"), ("4", "cat")):
        moved = await bench.store.reserve(*with_gift(key, user))
        assert moved.reservation is not None
        claims.append([name for name, _ in moved.reservation.claims])
    assert claims == [
        ["stock/phone", "gift/p/g", "gift/p/g@", "gift/p/h"],
        ["stock/phone", "gift/p/h"],
        ["stock/phone", "gift/p/g", "gift/p/g@", "gift/p/h"],
        ["stock/phone", "gift/p/h"],
    ]
    standing = await bench.store.standing(SALE, ["gift/p/g", "gift/p/g@ann", "gift/p/g@cat", "gift/p/h"])
    assert [level.used for level in standing.levels] == [2, 1, 0, 4]


async def test_only_what_heeds_the_status_is_stopped_by_it(bench: Bench) -> None:
    revision = await configure(bench)
    held = await bench.store.reserve(*first())
    for status, outcome in (("paused", Outcome.PAUSED), ("closed", Outcome.ENDED)):
        revision = await configure(bench, revision, status)
        amend = then(held, "held", claims=(stock(1),), heeds_status=True)
        assert (await bench.store.move(amend)).outcome is outcome
        held = await bench.store.move(replace(amend, heeds_status=False))
        assert held.outcome is Outcome.MOVED
