"""The judge finds what was planted, and nothing where nothing was."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from loadtests.faults.judge import BookRows, Bounds, Excuse, Order, Payment, Refund, Verdict, judge
from loadtests.faults.log import ClientLog, Try
from loadtests.faults.provider import Charge, Provider

SALE, TRADE_IN = "sale", "trade-in"
HOLD_SECONDS = 3
BOUNDS = Bounds({(SALE, "phone"): 2, (TRADE_IN, "cable"): 9}, {SALE: 2}, grants=2, hold_seconds=HOLD_SECONDS)
CLEAN: dict[str, Any] = {
    "campaigns": [
        {
            "id": SALE,
            "offers": [{"sku": "phone", "stock": 2, "held": 0, "sold": 1, "available": 1}],
            "violations": [],
        }
    ]
}
ANN = Order(f"{SALE}.a", SALE, "ann", "phone", 1, "confirmed", 3)
BOB = Order(f"{SALE}.b", SALE, "bob", "phone", 1, "expired", 2)
CABLE = Order(f"{TRADE_IN}.d", TRADE_IN, "dan", "cable", 1, "confirmed", 2, "shop-1")
"""A trade-in to a main order."""
PAID = Payment(f"{SALE}.a.full", f"{SALE}.a", "full", 5000, "succeeded")


def told(order: Order, *, at: float = 1.0, status: int | None = 201, what: str = "reserve") -> Try:
    return Try(
        what, order.campaign, order.user, f"key-{order.user}", order.sku, order.quantity, at, at, status,
        reservation=order.reservation, created_at="then",
    )  # fmt: skip


def add_on(order: Order, log: ClientLog, *, at: float, key: str = "key-dan") -> Try:
    """A trade-in that its user was told of at once; all of them were made as the log begins, plus `at`."""
    made_at = datetime.fromtimestamp(log.epoch + at, UTC).isoformat()
    return replace(told(order, at=at), key=key, created_at=made_at, order=order.main_order)


def of_order(what: str, order: str, *, at: float, status: int | None = 200) -> Try:
    return Try(what, TRADE_IN, "dan", order, "tv", 1, at, at, status, order=order)


class Case:
    """A round in which all is well, to be spoilt."""

    def __init__(self) -> None:
        self.log = ClientLog()
        self.log.tries = [told(ANN), told(ANN, at=2.0, what="replay"), told(BOB)]
        self.log.tries += [of_order("report order", "shop-1", at=0.5, status=201)]
        self.log.tries += [add_on(CABLE, self.log, at=1.0)]
        self.orders, self.payments, self.refunds = [ANN, BOB, CABLE], [PAID], list[Refund]()
        self.in_book, self.in_store = {"shop-1": "paid"}, {"shop-1": "paid"}
        self.audit = CLEAN
        self.provider = Provider("whsec_c2VjcmV0", random.Random(1))
        self.provider.charges[PAID.payment_id] = Charge(PAID.payment_id, 5000, "CNY", taken=True)
        self.excuse: Excuse | None = None
        self.named: set[str] | None = None

    def judge(self) -> Verdict:
        rows = BookRows(self.orders, self.payments, self.refunds, self.in_book)
        return judge(
            self.log, rows, self.in_store, self.audit, self.provider, BOUNDS, self.excuse, self.named
        )

    def cancel_main_order(self, *, at: float) -> None:
        """As it should be, but for what was made of it."""
        self.log.tries.append(of_order("cancel order", "shop-1", at=at))
        self.in_book["shop-1"] = self.in_store["shop-1"] = "cancelled"


@pytest.fixture
def case() -> Case:
    return Case()


def test_nothing_is_found_where_all_is_well(case: Case) -> None:
    verdict = case.judge()
    assert verdict.ok, verdict.findings
    assert (verdict.acknowledged, verdict.settled) == (3, 3)


def test_a_loss_is_found(case: Case) -> None:
    case.orders.remove(BOB)
    verdict = case.judge()
    assert (verdict.lost, verdict.settled, verdict.ok) == (1, 2, False)


def test_a_loss_that_the_setting_admits_is_counted_apart(case: Case) -> None:
    case.orders.remove(BOB)
    case.excuse = Excuse(struck_at=1.5, seconds=1.0, gone_at=1.5)
    verdict = case.judge()
    assert (verdict.lost, verdict.admitted, verdict.ok) == (0, 1, True)
    case.excuse = Excuse(struck_at=10.0, seconds=1.0, gone_at=10.0)
    assert case.judge().lost == 1, "it had been acknowledged long before"


def test_a_loss_that_repair_did_not_name_is_found(case: Case) -> None:
    case.orders.remove(BOB)
    case.excuse = Excuse(struck_at=1.5, seconds=1.0, gone_at=1.5)
    case.named = {BOB.reservation}
    assert case.judge().ok
    case.named = set()
    assert not case.judge().ok


def test_a_cancellation_that_was_lost_is_found(case: Case) -> None:
    case.log.tries.append(replace(told(ANN, status=200, what="cancel"), state="cancelled"))
    assert case.judge().lost == 1


def test_an_oversell_in_the_book_is_found(case: Case) -> None:
    case.orders.append(Order(f"{SALE}.c", SALE, "cat", "phone", 2, "held", 1))
    verdict = case.judge()
    assert (verdict.oversold, verdict.ok) == (1, False)


def test_an_oversell_in_the_store_is_found(case: Case) -> None:
    offer = {"sku": "phone", "stock": 2, "held": 2, "sold": 3, "available": -3}
    case.audit = {"campaigns": [{"id": SALE, "offers": [offer], "violations": []}]}
    assert case.judge().oversold == 3


def test_two_reservations_for_one_key_are_found(case: Case) -> None:
    other = replace(told(ANN, at=3.0), reservation=f"{SALE}.other")
    case.log.tries.append(other)
    assert case.judge().double == 1


def test_a_key_that_was_told_of_another_time_is_found(case: Case) -> None:
    case.log.tries.append(replace(told(ANN, at=3.0), created_at="later"))
    assert not case.judge().ok


def test_an_order_twice_is_found(case: Case) -> None:
    case.orders.append(ANN)
    assert case.judge().double == 1


def test_a_quota_exceeded_is_found(case: Case) -> None:
    case.orders[0] = ANN._replace(quantity=3)
    case.log.tries[:2] = [replace(one, quantity=3) for one in case.log.tries[:2]]
    assert case.judge().double == 1


def test_two_charges_for_one_stage_are_found(case: Case) -> None:
    case.payments.append(PAID._replace(payment_id=f"{SALE}.a.full-2"))
    assert case.judge().double == 1


def test_a_charge_that_the_book_does_not_have_is_found(case: Case) -> None:
    case.payments.clear()
    assert case.judge().lost == 1
    case.provider.charges[PAID.payment_id].taken_at = 1.0
    case.excuse = Excuse(struck_at=1.5, seconds=1.0, gone_at=1.5)
    assert (case.judge().lost, case.judge().admitted) == (0, 1)


def test_a_charge_that_was_kept_for_what_has_ended_is_found(case: Case) -> None:
    case.orders[0] = ANN._replace(state="expired")
    assert not case.judge().ok
    case.refunds.append(Refund(f"{PAID.payment_id}.refund", PAID.payment_id, 5000))
    assert case.judge().ok


def test_a_refund_twice_is_found(case: Case) -> None:
    case.orders[0] = ANN._replace(state="refunded")
    case.refunds = [Refund(f"refund-{n}", PAID.payment_id, 5000) for n in range(2)]
    assert case.judge().double == 1
    case.refunds.pop()
    case.provider.refunded = Counter({PAID.payment_id: 10_000})
    assert case.judge().double == 1


def test_what_the_audit_finds_is_found(case: Case) -> None:
    violation = {"invariant": "I9", "detail": "gift/phone: 3 given, 2 promised"}
    case.audit = {"campaigns": [{"id": SALE, "offers": [], "violations": [violation]}]}
    verdict = case.judge()
    assert (verdict.double, verdict.ok) == (1, False)


def test_a_malfunction_is_found_and_a_503_is_none(case: Case) -> None:
    case.log.tries.append(told(ANN, status=503))
    assert case.judge().ok
    case.log.tries.append(told(ANN, status=500))
    assert not case.judge().ok


def test_a_forged_webhook_that_was_believed_is_found(case: Case) -> None:
    case.provider.believed["signature"] += 1
    assert case.judge().double == 1


def test_a_trade_in_that_was_given_back_with_its_main_order_is_no_finding(case: Case) -> None:
    case.orders[2] = CABLE._replace(state="refunded")
    case.cancel_main_order(at=2.0)
    verdict = case.judge()
    assert verdict.ok, verdict.findings


@pytest.mark.parametrize("where", ["in_book", "in_store"])
def test_a_main_order_that_was_lost_is_found(case: Case, where: str) -> None:
    getattr(case, where).clear()
    assert case.judge().lost == 1
    case.excuse = Excuse(struck_at=0.6, seconds=1.0, gone_at=0.6)
    assert (case.judge().lost, case.judge().admitted) == (0, 1)


@pytest.mark.parametrize("where", ["in_book", "in_store"])
def test_a_main_orders_cancellation_that_was_lost_is_found(case: Case, where: str) -> None:
    case.orders[2] = CABLE._replace(state="refunded")
    case.cancel_main_order(at=2.0)
    getattr(case, where)["shop-1"] = "paid"
    assert case.judge().lost == 1


def test_stores_that_do_not_agree_on_a_main_order_are_found(case: Case) -> None:
    case.in_store["shop-1"] = "cancelled"
    case.orders[2] = CABLE._replace(state="refunded")
    assert not case.judge().ok, "though nobody was told that it was cancelled"


def test_a_trade_in_that_outlives_its_main_order_is_found(case: Case) -> None:
    case.cancel_main_order(at=2.0)
    assert case.judge().double == 1


def test_more_add_ons_in_the_book_than_a_main_order_grants_are_found(case: Case) -> None:
    case.orders.append(CABLE._replace(reservation=f"{TRADE_IN}.e", quantity=2))
    assert case.judge().double == 1


def test_a_trade_in_to_another_main_order_than_was_asked_for_is_found(case: Case) -> None:
    case.orders[2] = CABLE._replace(main_order="shop-2")
    assert not case.judge().ok


def more(case: Case, *, at: float) -> None:
    """Two units more to the same main order, which have ended by now: only the log can tell."""
    other = CABLE._replace(reservation=f"{TRADE_IN}.e", quantity=2, state="expired")
    case.orders.append(other)
    case.log.tries.append(add_on(other, case.log, at=at, key="key-other"))


def test_an_entitlement_that_was_used_twice_for_a_while_is_found(case: Case) -> None:
    more(case, at=2.0)
    verdict = case.judge()
    assert (verdict.double, verdict.lost) == (1, 0)


def test_an_entitlement_that_was_free_again_is_no_finding(case: Case) -> None:
    more(case, at=1.1 + HOLD_SECONDS)
    verdict = case.judge()
    assert verdict.ok, verdict.findings


def test_an_entitlement_that_was_used_again_after_a_cancellation_is_no_finding(case: Case) -> None:
    case.orders[2] = CABLE._replace(state="cancelled")
    given_back = replace(add_on(CABLE, case.log, at=1.5), what="cancel", status=200, state="cancelled")
    case.log.tries.append(given_back)
    more(case, at=2.0)
    verdict = case.judge()
    assert verdict.ok, verdict.findings


def test_a_trade_in_that_was_granted_after_its_main_order_was_cancelled_is_found(case: Case) -> None:
    case.orders[2] = CABLE._replace(state="refunded")
    case.cancel_main_order(at=2.0)
    more(case, at=2.5)
    assert case.judge().double == 1
    case.excuse = Excuse(struck_at=2.2, seconds=1.0, gone_at=2.2)
    assert case.judge().ok, "the cancellation may have been lost"
