"""The demo's checks: what is right passes, and each thing that is wrong is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from doorbuster.demo import presale, trade_in
from doorbuster.demo.checks import (
    Violation,
    check_answers,
    check_ends,
    check_gifts,
    check_line,
    check_money,
    check_orders,
    check_prices,
    check_ranking,
    check_units,
    price_of,
    spent,
)
from doorbuster.demo.log import Log, Place
from doorbuster.demo.report import PROMISES
from doorbuster.demo.shopper import or_from
from reservation.campaign import Campaign, Status
from reservation.catalog import parse_campaign
from reservation.kinds import KINDS

DOCUMENT = presale.document(60)
ENDS_AT = datetime(2026, 1, 1, 1, tzinfo=UTC)


def view(name: str, state: str, version: int = 1, **changes: Any) -> dict[str, Any]:
    """A reservation of a phone, as its user is shown it."""
    found = {
        "id": name,
        "user": f"user-of-{name}",
        "sku": "phone-16",
        "quantity": 1,
        "state": state,
        "version": version,
        "due": None,
        "price": price_of(DOCUMENT, "phone-16", changes.get("quantity", 1)),
        "created_at": f"2026-01-01T00:00:0{version}.000Z",
        "updated_at": f"2026-01-01T00:00:0{version}.000Z",
    }
    return found | changes


def log_of(*views: dict[str, Any]) -> Log:
    log = Log("singles-day-phones", closes_at=0)
    for one in views:
        log.see(one)
    return log


def promises(found: Iterable[Violation]) -> list[str]:
    return [one.promise for one in found]


def test_what_is_right_is_no_violation() -> None:
    log = log_of(view("a", "held"), view("a", "deposit_paid", 2), view("a", "confirmed", 3))
    log.by_key["user-of-a", "key"] = {"a"}
    log.followed["a"].charged = {"a.deposit": 10000, "a.balance": 529900}
    log.take_quote("phone-16", 1, price_of(DOCUMENT, "phone-16", 1))
    ends = {"a": view("a", "confirmed", 3)}
    offer = {"sku": "phone-16", "stock": 5, "sold": 1, "held": 0, "available": 4}
    ranking = {"final": True, "entries": [{"rank": 1, "user": "u***a", "amount": 539900}]}
    assert spent(log, ENDS_AT) == {"user-of-a": 539900}
    assert not [
        *check_answers(log),
        *check_ends(log, ends),
        *check_units(ends, [offer]),
        *check_money(log, ends, lambda _: 0, []),
        *check_prices(log, DOCUMENT),
        *check_ranking(ranking, {"user-of-a": 539900}, spent(log, ENDS_AT)),
    ]


@pytest.mark.parametrize(
    ("last", "end", "promise"),
    [
        ("confirmed", "expired", "I4"),
        ("confirmed", "refunded", "I4"),
        ("held", "confirmed", "I4"),
        ("held", "held", "I4"),
        ("deposit_paid", "cancelled", "I4"),
        ("cancelled", "confirmed", "I4"),
        ("held", None, "I4"),
        ("held", "expired", None),
        ("deposit_paid", "forfeited", None),
    ],
)
def test_an_end_that_the_log_does_not_explain_is_found(
    last: str, end: str | None, promise: str | None
) -> None:
    ends = {"a": view("a", end, 2)} if end else {}
    assert promises(check_ends(log_of(view("a", last)), ends)) == ([promise] if promise else [])


def test_what_is_left_of_a_cancelled_main_order_is_found() -> None:
    log = log_of(view("a", "confirmed", order_id="o"), view("b", "held", order_id="o"))
    right = {"a": view("a", "refunded", 2), "b": view("b", "cancelled", 2)}
    assert not [*check_ends(log, right, {"o"})]
    left = {"a": view("a", "confirmed", 2), "b": view("b", "cancelled", 2)}
    assert promises(check_ends(log, left, {"o"})) == ["I4"]


def test_a_reservation_that_nobody_was_told_of_is_found() -> None:
    assert promises(check_ends(log_of(), {"a": view("a", "confirmed")})) == ["I5"]


def test_two_reservations_of_one_key_and_other_answers_are_found() -> None:
    log = log_of()
    log.by_key["ann", "key"] = {"a", "b"}
    log.unexpected.append("ann: 500")
    assert promises(check_answers(log)) == ["API", "I6"]


@pytest.mark.parametrize(
    ("state", "charged", "refunded", "broken"),
    [
        ("confirmed", 539900, 0, False),
        ("confirmed", 539900, 1, True),
        ("confirmed", 529900, 0, True),
        ("cancelled", 10000, 10000, False),
        ("cancelled", 10000, 0, True),
        ("cancelled", 10000, 20000, True),
        ("forfeited", 10000, 0, False),
        ("forfeited", 10000, 10000, True),
        ("expired", 0, 0, False),
        ("refunded", 10000, 9999, True),
    ],
)
def test_money_that_is_not_where_it_belongs_is_found(
    state: str, charged: int, refunded: int, broken: bool
) -> None:
    log, ends = log_of(view("a", "held")), {"a": view("a", state, 2)}
    log.followed["a"].charged = {"a.deposit": charged}
    assert promises(check_money(log, ends, lambda _: refunded, [])) == ["I7"] * broken


@pytest.mark.parametrize(
    ("change", "promise"),
    [({"held": 1, "available": 3}, "I8"), ({"sold": 2, "available": 3}, "I4"), ({"available": 3}, "I1")],
)
def test_units_that_do_not_add_up_are_found(change: dict[str, int], promise: str) -> None:
    offer = {"sku": "phone-16", "stock": 5, "sold": 1, "held": 0, "available": 4}
    assert promises(check_units({"a": view("a", "confirmed")}, [offer | change])) == [promise]


def test_a_price_other_than_the_quoted_one_is_found() -> None:
    wrong = price_of(DOCUMENT, "phone-16", 1) | {"balance": 1}
    assert promises(check_prices(log_of(view("a", "held", price=wrong)), DOCUMENT)) == ["API"]
    log = log_of(view("a", "held"))
    log.take_quote("phone-16", 1, wrong)
    assert promises(check_prices(log, DOCUMENT)) == ["API"]
    log.take_quote("phone-16", 1, price_of(DOCUMENT, "phone-16", 1))
    assert promises(check_answers(log)) == ["API"]


@pytest.mark.parametrize(
    ("given", "asked", "broken"), [(10, 30, False), (11, 30, True), (9, 30, True), (7, 7, False)]
)
def test_a_gift_too_many_or_too_few_is_found(given: int, asked: int, broken: bool) -> None:
    gift = {"lines": [{"sku": "earbuds", "quantity": 1, "gift": True}]}
    at_gap = {f"r{n}": view(f"r{n}", "deposit_paid", **(gift if n < given else {})) for n in range(asked)}
    log = log_of(*at_gap.values())
    for one in log.followed.values():
        one.paid_at = 1.0
    assert promises(check_gifts(log, at_gap, DOCUMENT)) == ["I9"] * broken


def test_who_is_served_before_somebody_in_front_of_them_is_found() -> None:
    log = log_of(view("a", "held", created_at="1"), view("b", "held", created_at="2"))

    def line(*served: str | None) -> list[str]:
        log.line = [Place(f"user-{n}", "phone-16", served=one) for n, one in enumerate(served)]
        return promises(check_line(log))

    assert line("a", "b", None) == []
    assert line("b", "a") == ["API"]
    assert line(None, "a") == ["API"]


def test_a_ranking_that_is_not_what_was_spent_is_found() -> None:
    entries = [{"rank": 1, "user": "a", "amount": 5}]
    right = {"final": True, "entries": entries}
    assert not [*check_ranking(right, {"ann": 5, "bob": None}, {"ann": 5})]
    assert promises(check_ranking(right | {"final": False}, {}, {"ann": 5})) == ["API"]
    assert promises(check_ranking(right, {}, {"ann": 4})) == ["API"]
    assert promises(check_ranking(right, {"ann": 4}, {"ann": 5})) == ["API"]


@pytest.mark.parametrize(
    ("granted", "used", "units", "broken"),
    [(2, 2, 2, False), (2, 3, 3, True), (2, 1, 2, True), (0, 0, 0, True)],
)
def test_a_trade_in_beyond_its_entitlement_is_found(
    granted: int, used: int, units: int, broken: bool
) -> None:
    order = {"entitlements": [{"campaign": "c", "granted": granted, "used": used}]}
    ends = {"a": view("a", "confirmed", quantity=units, order_id="o")} if units else {}
    assert bool(promises(check_orders({"o": order}, ends, "c", {"o": 2}))) is broken


def test_answers_may_depend_on_when_they_come() -> None:
    assert or_from("held", 0, "ended")() == "held ended"
    assert or_from(or_from("held", None, "x"), 10**10, "ended")() == "held"


@pytest.mark.parametrize("make", [presale.document, trade_in.document])
@pytest.mark.parametrize("count", [30, 300])
def test_the_demos_prices_are_the_services(make: Callable[[int], dict[str, Any]], count: int) -> None:
    """The demo reckons for itself; here it is held to the service's own rules."""
    document = make(count)
    campaign = Campaign(parse_campaign(document), 1, Status.RUNNING, 0)
    for sku, offer in campaign.offers.items():
        for quantity in (1, 2, 3):
            price = KINDS[campaign.kind].price(campaign, offer, quantity)
            assert price_of(document, sku, quantity) == price.to_json()


def test_every_check_breaks_a_promise_that_is_printed() -> None:
    assert set(PROMISES) == {f"I{n}" for n in range(1, 10)} | {"API"}
