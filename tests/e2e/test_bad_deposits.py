"""Deposits, balances and refunds in hands that mean no good: the money is right to the unit, and bounded."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from reservation.lifecycle import REFUNDS_MAX
from reservation.paying import PAYMENTS_MAX
from tests.e2e.wire import assert_problem
from tests.stack import Answer, Client, eventually, in_phase, presale

pytestmark = pytest.mark.usefixtures("clean_log")

HUGE_PRICE, HUGE_QUANTITY = 10**12, 10**6


def offer(**changes: Any) -> dict[str, Any]:
    return {"sku": "phone", "price": 5000, "stock": 100, "deposit": 100, "deposit_worth": 200, **changes}


async def create(client: Client, **changes: Any) -> dict[str, Any]:
    document = presale(**{"offers": [offer()], **changes})
    assert (await client.put(document)).status == 201
    return document


async def move_to(client: Client, document: dict[str, Any], phase: str) -> None:
    assert (await client.put(in_phase(document, phase))).status == 200


@dataclass(frozen=True)
class Shopper:
    """One reservation of ann's, and everything that can be done to it."""

    client: Client
    book: psycopg.Connection
    document: dict[str, Any]
    id: str

    async def now(self) -> Any:
        return await self.client.reservation(self.id, "ann")

    async def state(self) -> str:
        return str((await self.now())["state"])

    async def amend(self, quantity: int) -> Answer:
        return await self.client.amend(self.id, "ann", quantity)

    async def ask(self, stage: str = "deposit") -> Any:
        answer = await self.client.pay(self.id, "ann", stage)
        assert answer.status == 200, answer
        return answer.body

    async def say(self, kind: str, name: str, amount: int, **more: Any) -> Answer:
        return await self.client.notify(kind, f"{self.id}.{name}", amount, **more)

    async def paid(self, stage: str = "deposit") -> Any:
        return await self.client.paid(self.id, "ann", stage)

    async def events(self) -> list[str]:
        """The types of all its events, once the book has them."""
        version = (await self.now())["version"]

        async def look() -> list[str]:
            rows = self.book.execute(
                "SELECT type FROM order_events WHERE reservation_id = %s ORDER BY version", [self.id]
            )
            return [row[0] for row in rows]

        return list(await eventually(look, lambda found: len(found) >= version))

    async def money(self) -> tuple[int, int]:
        """What was paid and what was given back, by the audited book; the refunds have been made."""
        await self.client.audit(self.document["id"])

        async def pending() -> Any:
            return self.book.execute(
                "SELECT count(*) FROM refunds WHERE reservation_id = %s AND status <> 'succeeded'", [self.id]
            ).fetchone()

        await eventually(pending, lambda found: found == (0,))
        row = self.book.execute("SELECT paid, refunded FROM orders WHERE reservation_id = %s", [self.id])
        found = row.fetchone()
        assert found is not None
        by_row = self.book.execute(
            "SELECT (SELECT coalesce(sum(amount), 0) FROM payments"
            " WHERE reservation_id = %(id)s AND status = 'succeeded'),"
            " (SELECT coalesce(sum(amount), 0) FROM refunds WHERE reservation_id = %(id)s)",
            {"id": self.id},
        )
        assert by_row.fetchone() == found
        return found[0], found[1]


async def held(client: Client, book: psycopg.Connection, quantity: int = 1, **changes: Any) -> Shopper:
    document = await create(client, **changes)
    made = await client.reserve(document["id"], "ann", quantity=quantity)
    assert made.status == 201, made
    return Shopper(client, book, document, made.body["id"])


@pytest.fixture
async def shopper(client: Client, book_connection: psycopg.Connection) -> Shopper:
    """One unit held."""
    return await held(client, book_connection)


# Notices of payments that are no longer, or not yet, wanted


async def test_a_superseded_payment_goes_back_once_however_often_it_is_told(shopper: Shopper) -> None:
    await shopper.ask()
    await shopper.amend(2)
    second = await shopper.ask()
    assert second["payment_id"] == f"{shopper.id}.deposit-2"
    for _ in range(3):
        assert (await shopper.say("payment.succeeded", "deposit", 100)).status == 200
    assert await shopper.state() == "held"
    assert_problem(await shopper.say("payment.succeeded", "deposit", 200), "payment_mismatch")
    assert (await shopper.say("payment.succeeded", "deposit-2", 200)).status == 200
    assert (await shopper.say("payment.failed", "deposit-2", 200)).status == 200
    assert await shopper.state() == "deposit_paid"
    assert await shopper.money() == (300, 100)


async def test_the_second_deposit_is_its_own_amount(shopper: Shopper) -> None:
    await shopper.paid()
    await shopper.amend(3)
    payment = await shopper.ask()
    assert (payment["payment_id"], payment["amount"]) == (f"{shopper.id}.deposit-2", 200)
    for wrong in (100, 199, 201, 300, 0, -200, 2**63 - 1):
        assert_problem(await shopper.say("payment.succeeded", "deposit-2", wrong), "payment_mismatch")
    assert_problem(
        await shopper.say("payment.succeeded", "deposit-2", 200, currency="EUR"), "payment_mismatch"
    )
    assert_problem(await shopper.say("payment.succeeded", "deposit-3", 200), "payment_not_found")
    for name in ("deposit-0", "deposit-1", "deposit-02", "deposit-100", "deposit-", "deposit-2.refund"):
        assert_problem(await shopper.say("payment.succeeded", name, 200), "payment_not_found")
    assert (await shopper.now())["due"]["amount"] == 200
    assert (await shopper.say("payment.succeeded", "deposit-2", 200)).status == 200
    assert (await shopper.now())["due"]["stage"] == "balance"
    assert await shopper.money() == (300, 0)


async def test_a_balance_that_was_never_asked_for_is_unknown(shopper: Shopper) -> None:
    """Whatever the phase; and one that was asked for confirms even where its window was moved away since."""
    await shopper.paid()
    for phase in ("open", "between", "balance"):
        await move_to(shopper.client, shopper.document, phase)
        assert_problem(await shopper.say("payment.succeeded", "balance", 4_800), "payment_not_found")
        assert await shopper.state() == "deposit_paid"
    payment = await shopper.ask("balance")
    await move_to(shopper.client, shopper.document, "between")

    async def refused() -> Answer:
        return await shopper.client.pay(shopper.id, "ann", "balance")

    # A payment that was asked for may be asked for again until every process has heard of the change.
    answer = await eventually(refused, lambda found: found.status != 200, 2)
    early = assert_problem(answer, "payment_window_closed")
    opens_at = datetime.fromisoformat(early["opens_at"])
    assert timedelta(minutes=59) < opens_at - datetime.now(UTC) < timedelta(minutes=61)
    assert early["retry_after_s"] > 3_500
    await shopper.client.settle_payment(payment["payment_id"])
    assert await shopper.state() == "confirmed"
    assert await shopper.money() == (4_900, 0)


async def test_what_failed_may_succeed_and_what_succeeded_stays(shopper: Shopper) -> None:
    await shopper.ask()
    for _ in range(2):
        assert (await shopper.say("payment.failed", "deposit", 100)).status == 200
    assert await shopper.state() == "held"
    assert (await shopper.ask())["payment_id"] == f"{shopper.id}.deposit", "it is the same payment"
    assert (await shopper.say("payment.failed", "deposit", 100)).status == 200
    assert (await shopper.say("payment.succeeded", "deposit", 100)).status == 200
    assert (await shopper.say("payment.failed", "deposit", 100)).status == 200
    assert await shopper.state() == "deposit_paid"
    assert_problem(await shopper.client.pay(shopper.id, "ann", "full"), "wrong_state")
    assert await shopper.money() == (100, 0)


async def test_a_deposit_for_which_no_balance_can_be_paid_any_more_goes_back(shopper: Shopper) -> None:
    """Held, asked to pay, and the windows are moved so that all is over: the deposit is not just lost."""
    payment = await shopper.ask()
    await move_to(shopper.client, shopper.document, "closed")
    # Within a quarter of a second every process has heard that the windows were moved.
    answer = await eventually(
        lambda: shopper.client.pay(shopper.id, "ann", "deposit"), lambda found: found.status != 200
    )
    assert "opens_at" not in assert_problem(answer, "payment_window_closed")
    for _ in range(3):
        await shopper.client.settle_payment(payment["payment_id"])
    assert await shopper.state() == "held"
    assert await shopper.money() == (100, 100)
    # Moved back, the deposit may be paid again, by another payment.
    await move_to(shopper.client, shopper.document, "open")
    assert (await shopper.paid())["state"] == "deposit_paid"
    assert await shopper.money() == (200, 100)


async def test_a_hold_that_is_over_does_not_speak_of_the_balance(
    client: Client, book_connection: psycopg.Connection
) -> None:
    shopper = await held(client, book_connection, hold_seconds=1)
    due = datetime.fromisoformat((await shopper.now())["due"]["by"])

    async def refused() -> Answer:
        return await client.pay(shopper.id, "ann", "deposit")

    await asyncio.sleep((due - datetime.now(UTC)).total_seconds())
    answer = await eventually(refused, lambda found: found.status != 200)
    assert "opens_at" not in assert_problem(answer, "payment_window_closed")


async def test_notices_come_in_any_order(client: Client, book_connection: psycopg.Connection) -> None:
    """Of two deposits, each told of twice as succeeded and once as failed, in any order: right in the end."""
    orders = random.Random(7)

    async def play() -> None:
        shopper = await held(client, book_connection)
        await shopper.ask()
        await shopper.amend(3)
        await shopper.ask()
        said = [
            ("payment.succeeded", name, amount) for name, amount in (("deposit", 100), ("deposit-2", 300))
        ]
        said = said * 2 + [("payment.failed", name, amount) for _, name, amount in said]
        orders.shuffle(said)
        answers = await asyncio.gather(*(shopper.say(*one) for one in said))
        assert {answer.status for answer in answers} == {200}, answers
        assert await shopper.state() == "deposit_paid"
        assert await shopper.money() == (400, 100)

    await asyncio.gather(*(play() for _ in range(8)))


# Refunds


async def test_a_refund_is_believed_when_it_is_one_that_was_decided(shopper: Shopper) -> None:
    await shopper.paid()
    for name, amount in (("deposit", 100), ("deposit", 1), ("deposit-2", 100), ("balance", 100)):
        for refund in (None, f"{shopper.id}.deposit.refund", "deposit.refund", "nonsense", "x" * 10_000):
            early = await shopper.say("refund.succeeded", name, amount, refund_id=refund)
            assert_problem(early, "payment_not_found")
    version = (await shopper.now())["version"]
    await shopper.client.cancel(shopper.id, "ann")
    assert await shopper.money() == (100, 100)
    after = (await shopper.now())["version"]
    assert after == version + 2, "cancelled, refunded"
    known = {"refund_id": f"{shopper.id}.deposit.refund"}
    for more in (known, {}, {"refund_id": "deposit.refund"}, known | {"provider_ref": "another"}):
        assert (await shopper.say("refund.succeeded", "deposit", 100, **more)).status == 200
    for name, refund in (("deposit", "deposit.refund-2"), ("deposit", "balance.refund"), ("deposit-2", None)):
        unknown = await shopper.say("refund.succeeded", name, 100, refund_id=refund)
        assert_problem(unknown, "payment_not_found")
    assert (await shopper.now())["version"] == after, "what was known, or is nobody's, changes nothing"
    for amount in (101, 99, 0, -100, 2**63):
        for more in (known, {}):
            wrong = await shopper.say("refund.succeeded", "deposit", amount, **more)
            assert_problem(wrong, "payment_mismatch")
    wrong = await shopper.say("refund.succeeded", "deposit", 100, currency="EUR", **known)
    assert_problem(wrong, "payment_mismatch")
    assert await shopper.state() == "cancelled"
    assert await shopper.money() == (100, 100)


@pytest.mark.parametrize("refund", [7, [], {}, True])
async def test_a_refund_id_is_text(shopper: Shopper, refund: object) -> None:
    await shopper.paid()
    await shopper.client.cancel(shopper.id, "ann")
    answer = await shopper.say("refund.succeeded", "deposit", 100, refund_id=refund)
    assert_problem(answer, "malformed_json")


async def test_wrong_notices_are_recorded_and_bounded(shopper: Shopper) -> None:
    """Each lie is an event; none is a payment."""
    await shopper.ask()
    for number in range(60):
        lie = await shopper.say("payment.succeeded", "deposit", 1_000 + number, provider_ref="r" * 255)
        assert_problem(lie, "payment_mismatch")
    assert (await shopper.events()).count("payment_rejected") == 60
    kept = shopper.book.execute("SELECT count(*) FROM payments WHERE reservation_id = %s", [shopper.id])
    assert kept.fetchone() == (1,)
    assert await shopper.state() == "held"
    assert (await shopper.paid())["state"] == "deposit_paid"
    assert await shopper.money() == (100, 0)


# Changing one's mind, and again


async def test_up_and_down_a_hundred_times_costs_nothing(shopper: Shopper) -> None:
    await shopper.paid()
    before = await shopper.now()
    for number in range(50):
        assert (await shopper.amend(2 + number % 3)).body["due"]["stage"] == "deposit"
        assert (await shopper.amend(1)).body["due"] == before["due"]
    after = await shopper.now()
    assert (after["quantity"], after["price"]) == (1, before["price"])
    assert await shopper.money() == (100, 0)
    assert (await shopper.client.audit(shopper.document["id"]))["phone"]["held"] == 1


async def test_to_change_to_what_it_is_changes_nothing(shopper: Shopper) -> None:
    for pay in (False, True):
        if pay:
            await shopper.paid()
        before = await shopper.now()
        for _ in range(3):
            same = await shopper.amend(1)
            assert (same.status, same.body) == (200, before)


async def test_fifty_changes_at_once_leave_one_truth(shopper: Shopper) -> None:
    await shopper.paid()
    answers = await asyncio.gather(*(shopper.amend(1 + number % 5) for number in range(50)))
    assert {answer.status for answer in answers} <= {200, 503}
    found = await shopper.now()
    assert found["price"]["deposit"] == 100 * found["quantity"]
    if found["quantity"] > 1:
        await shopper.paid()
    assert await shopper.money() == (100 * found["quantity"], 0)
    assert (await shopper.client.audit(shopper.document["id"]))["phone"]["held"] == found["quantity"]


async def test_payments_of_one_stage_are_bounded(shopper: Shopper) -> None:
    """Another amount is another payment, up to so many; those that were asked for before are still good."""
    await shopper.paid()
    for number in range(2, PAYMENTS_MAX + 1):
        await shopper.amend(number)
        assert (await shopper.ask())["payment_id"] == f"{shopper.id}.deposit-{number}"
    await shopper.amend(PAYMENTS_MAX + 1)
    assert_problem(await shopper.client.pay(shopper.id, "ann", "deposit"), "wrong_state")
    assert_problem(
        await shopper.say("payment.succeeded", f"deposit-{PAYMENTS_MAX + 1}", 2_000), "payment_not_found"
    )
    await shopper.amend(4)
    assert (await shopper.ask())["payment_id"] == f"{shopper.id}.deposit-4", "of this amount there is one"
    assert (await shopper.paid())["quantity"] == 4
    # All the others are paid too, by whoever clicked on all the links: they go back.
    names = [f"deposit-{number}" for number in range(2, PAYMENTS_MAX + 1)]
    amounts = [100 * (number - 1) for number in range(2, PAYMENTS_MAX + 1)]
    paying = (shopper.say("payment.succeeded", *one) for one in zip(names, amounts, strict=True))
    assert {answer.status for answer in await asyncio.gather(*paying)} == {200}
    paid, returned = await shopper.money()
    assert (paid, paid - returned) == (100 + sum(amounts), 400)


async def test_refunds_of_one_reservation_are_bounded(
    client: Client, book_connection: psycopg.Connection
) -> None:
    units = REFUNDS_MAX + 20
    shopper = await held(client, book_connection, units, offers=[offer(stock=1_000)])
    await shopper.paid()
    for number in range(1, REFUNDS_MAX + 1):
        assert (await shopper.amend(units - number)).status == 200
    assert_problem(await shopper.amend(10), "wrong_state")
    left = await shopper.now()
    assert (left["quantity"], left["due"]["stage"]) == (20, "balance")
    assert (await client.cancel(shopper.id, "ann")).status == 200, "to give it all up is always possible"
    assert await shopper.money() == (100 * units, 100 * units)


async def test_what_is_not_refundable_is_kept_whichever_way_it_is_given_up(
    client: Client, book_connection: psycopg.Connection
) -> None:
    shopper = await held(client, book_connection, 5, deposit_refundable=False)
    await shopper.paid()
    for quantity in (4, 5, 3, 1):
        await shopper.amend(quantity)
    assert (await shopper.amend(2)).body["due"]["amount"] == 100, "what was kept does not count again"
    assert (await shopper.paid())["quantity"] == 2
    assert (await client.cancel(shopper.id, "ann")).body["state"] == "cancelled"
    assert await shopper.money() == (600, 0)


async def test_a_lost_difference_is_not_paid_twice(
    client: Client, book_connection: psycopg.Connection
) -> None:
    """Two pages open: a difference that lapsed and is asked for again, and both are paid."""
    shopper = await held(client, book_connection, hold_seconds=1)
    await shopper.paid()
    await shopper.amend(3)
    first = await shopper.ask()

    async def fallen_back() -> Any:
        return (await shopper.now())["quantity"]

    await eventually(fallen_back, lambda found: found == 1)
    await shopper.amend(3)
    again = await shopper.ask()
    assert again["payment_id"] == first["payment_id"], "the same amount, never paid: the same payment"
    for _ in range(2):
        await shopper.client.settle_payment(first["payment_id"])
    assert (await shopper.now())["quantity"] == 3
    assert await shopper.money() == (300, 0)


@pytest.mark.parametrize(
    "quantity", [0, -1, 10**6 + 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 1.0, "2", True]
)
async def test_a_quantity_beyond_all_bounds_is_invalid(shopper: Shopper, quantity: Any) -> None:
    answer = await shopper.client.amend(shopper.id, "ann", quantity)
    assert answer.status == (400 if quantity == 10**30 and answer.code == "malformed_json" else 422), answer
    assert (await shopper.now())["quantity"] == 1


async def test_more_than_there_is_is_refused_and_leaves_all_as_it_was(shopper: Shopper) -> None:
    for pay in (False, True):
        if pay:
            await shopper.paid()
        before = await shopper.now()
        for quantity in (101, 10**6):
            assert_problem(await shopper.amend(quantity), "sold_out")
        assert await shopper.now() == before


# Documents that change while money is under way


async def test_rules_may_go_while_reservations_live(
    client: Client, book_connection: psycopg.Connection
) -> None:
    gift = {"sku": "earbuds", "first": 3}
    shopper = await held(
        client,
        book_connection,
        offers=[offer(gifts=[gift]), offer(sku="case")],
        spend_and_save=[{"spend": 5_000, "save": 500}],
        reminder_seconds=[60],
    )
    paid = await shopper.paid()
    assert (len(paid["lines"]), paid["due"]["amount"]) == (2, 4_300)
    bare = {name: value for name, value in shopper.document.items() if name != "spend_and_save"}
    bare = {name: value for name, value in bare.items() if name != "reminder_seconds"}
    without = bare | {"offers": [offer(price=9_000)]}
    assert (await client.put(without)).status == 200
    now = await shopper.now()
    assert (now["price"], now["lines"]) == (paid["price"], paid["lines"]), "what was agreed holds"
    gone = await client.put(bare | {"offers": [offer(sku="case")]})
    assert_problem(gone, "invalid_request", "offers")
    assert_problem(
        await client.put(bare | {"offers": [offer(stock=0)]}), "invalid_request", "offers[0].stock"
    )
    assert_problem(await client.put(bare | {"offers": [offer(deposit=0)]}), "invalid_request")
    await move_to(client, without, "balance")
    assert (await shopper.paid("balance"))["state"] == "confirmed"
    assert await shopper.money() == (4_400, 0)
    assert (await shopper.now())["lines"] == paid["lines"]


async def test_an_offer_that_is_gone_takes_no_late_payment(
    client: Client, book_connection: psycopg.Connection
) -> None:
    shopper = await held(client, book_connection, hold_seconds=1, offers=[offer(), offer(sku="case")])
    payment = await shopper.ask()
    await client.in_state(shopper.id, "ann", "expired")
    assert (await client.put(shopper.document | {"offers": [offer(sku="case")]})).status == 200
    for _ in range(2):
        await client.settle_payment(payment["payment_id"])
    assert await shopper.state() == "refunded"
    assert await shopper.money() == (100, 100)


async def test_a_paused_or_closed_presale_still_settles_what_it_owes(shopper: Shopper) -> None:
    path = f"/v1/campaigns/{shopper.document['id']}/actions"
    payment = await shopper.ask()
    for action, code in (("pause", "paused"), ("close", "ended")):
        await shopper.client.call("POST", path, service=True, json_body={"action": action})
        assert_problem(await shopper.amend(2), code)
    await shopper.client.settle_payment(payment["payment_id"])
    assert await shopper.state() == "deposit_paid"
    assert (await shopper.client.cancel(shopper.id, "ann")).body["state"] == "cancelled"
    assert await shopper.money() == (100, 100)


# Amounts as large as there are


async def test_the_largest_amounts_are_exact(client: Client, book_connection: psycopg.Connection) -> None:
    """10^12 x 10^6, less the odd unit: no float, and no number in a script, can tell such amounts apart."""
    prices = {"price": HUGE_PRICE - 1, "deposit": 333_333_333_333, "deposit_worth": 333_333_333_334}
    shopper = await held(
        client,
        book_connection,
        HUGE_QUANTITY - 1,
        offers=[offer(stock=10**9, **prices)],
        spend_and_save=[{"spend": HUGE_PRICE, "save": HUGE_PRICE - 1}],
    )
    n = HUGE_QUANTITY - 1
    total, deposit, worth = (prices[name] * n for name in ("price", "deposit", "deposit_worth"))
    balance = total - worth - (HUGE_PRICE - 1)
    price = (await shopper.now())["price"]
    quoted = (await client.quote(shopper.document["id"], "ann", sku="phone", quantity=n)).body
    for found in (price, quoted):
        amounts = tuple(found[name] for name in ("total", "deposit", "deposit_worth", "balance"))
        assert amounts == (total, deposit, worth, balance)
    await shopper.ask()
    for wrong in (deposit - 1, deposit + 1):
        assert_problem(await shopper.say("payment.succeeded", "deposit", wrong), "payment_mismatch")
    assert (await shopper.paid())["due"]["amount"] == balance
    await shopper.amend(HUGE_QUANTITY)
    assert (await shopper.now())["due"]["amount"] == prices["deposit"]
    await shopper.amend(n)
    await move_to(client, shopper.document, "balance")
    payment = await shopper.ask("balance")
    assert payment["amount"] == balance
    assert_problem(await shopper.say("payment.succeeded", "balance", balance - 1), "payment_mismatch")
    assert (await shopper.paid("balance"))["state"] == "confirmed"
    assert await shopper.money() == (deposit + balance, 0)


async def test_all_payments_of_one_reservation_can_be_added_up(
    client: Client, book_connection: psycopg.Connection
) -> None:
    """Ten payments of 10^18 would be more than the book's numbers hold."""
    prices = {"price": HUGE_PRICE, "deposit": HUGE_PRICE, "deposit_worth": HUGE_PRICE}
    shopper = await held(client, book_connection, HUGE_QUANTITY, offers=[offer(stock=10**9, **prices)])
    asked = [await shopper.ask()]
    for number in range(1, 9):
        await shopper.amend(HUGE_QUANTITY - number)
        asked.append(await shopper.ask())
    await shopper.amend(HUGE_QUANTITY - 9)
    assert_problem(await client.pay(shopper.id, "ann", "deposit"), "wrong_state")
    await shopper.amend(HUGE_QUANTITY - 8)
    for payment in asked:
        assert (await client.settle_payment(payment["payment_id"])).body == {"webhook_status": 200}
    assert await shopper.state() == "deposit_paid"
    paid = sum(payment["amount"] for payment in asked)
    assert await shopper.money() == (paid, paid - asked[-1]["amount"])


async def test_rankings_bear_amounts_that_no_float_can_tell_apart(client: Client) -> None:
    """What is more than can be counted exactly is not counted: nothing is refused, nothing is left over."""
    prices = {"price": HUGE_PRICE, "deposit": HUGE_PRICE - 1, "deposit_worth": HUGE_PRICE}
    document = await create(client, offers=[offer(stock=10**9, **prices)])

    async def ranked() -> dict[str, int]:
        path = f"/v1/campaigns/{document['id']}/rankings/buyers"
        answer = await client.call("GET", path, user="whale")
        assert answer.status == 200
        return {one["user"]: one["amount"] for one in answer.body["entries"]}

    made = {}
    for number, quantity in enumerate((HUGE_QUANTITY, HUGE_QUANTITY, 3, HUGE_QUANTITY)):
        made[number] = (await client.reserve(document["id"], "whale", quantity=quantity)).body["id"]
        assert (await client.paid(made[number], "whale", "deposit"))["state"] == "deposit_paid"
    small = (await client.reserve(document["id"], "minnow")).body["id"]
    await client.paid(small, "minnow", "deposit")
    assert await ranked() == {"whale": 2**53 - 1, "m***w": HUGE_PRICE - 1}
    await client.audit(document["id"])
    for one in made.values():
        assert (await client.cancel(one, "whale")).status == 200
    assert await ranked() == {"m***w": HUGE_PRICE - 1}, "exactly nothing is left"
    await client.audit(document["id"])
