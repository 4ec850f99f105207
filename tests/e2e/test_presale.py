"""Presales, from the deposit to the last unit of balance, on the whole stack."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.e2e.wire import assert_problem
from tests.stack import Client, eventually, in_phase, presale


async def create(client: Client, **changes: Any) -> dict[str, Any]:
    document = presale(**changes)
    assert (await client.put(document)).status == 201
    return document


async def move_to(client: Client, document: dict[str, Any], phase: str) -> None:
    answer = await client.put(in_phase(document, phase))
    assert (answer.status, answer.body["phase"]) == (200, phase)


async def deposit_paid(client: Client, campaign: str, user: str, **body: Any) -> Any:
    held = await client.reserve(campaign, user, **body)
    assert held.status == 201, held
    paid = await client.paid(held.body["id"], user, "deposit")
    assert paid["state"] == "deposit_paid"
    return paid


def offer(**changes: Any) -> dict[str, Any]:
    return {
        "sku": "phone",
        "price": 5000,
        "stock": 100,
        "deposit": 100,
        "deposit_worth": 200,
        **changes,
    }


async def test_a_presale_answers_its_phase(client: Client) -> None:
    document = await create(client)
    for phase in ("between", "balance", "closed", "scheduled", "open"):
        await move_to(client, document, phase)
    warm = in_phase(document, "scheduled") | {"warm_up_at": document["opens_at"]}
    assert (await client.put(warm)).body["phase"] == "warm_up"


async def test_from_deposit_to_balance_to_a_row(client: Client, book_connection: psycopg.Connection) -> None:
    document = await create(client)
    held = (await client.reserve(document["id"], "ann", quantity=2)).body
    assert held["price"] == {
        "currency": "CNY",
        "unit": 5000,
        "total": 10_000,
        "deposit": 200,
        "deposit_worth": 400,
        "discounts": [],
        "balance": 9_600,
    }
    assert (held["due"]["stage"], held["due"]["amount"]) == ("deposit", 200)
    assert_problem(await client.pay(held["id"], "ann", "balance"), "wrong_state")
    assert_problem(await client.pay(held["id"], "ann", "full"), "wrong_state")
    paid = await client.paid(held["id"], "ann", "deposit")
    by = paid["due"].pop("by")
    assert by.startswith(document["balance_closes_at"][:19])
    assert (paid["state"], paid["due"]) == (
        "deposit_paid",
        {"stage": "balance", "amount": 9_600, "currency": "CNY"},
    )
    early = assert_problem(await client.pay(held["id"], "ann", "balance"), "payment_window_closed")
    assert early["opens_at"].startswith(document["balance_opens_at"][:19])
    await move_to(client, document, "between")
    assert_problem(await client.pay(held["id"], "ann", "balance"), "payment_window_closed")
    await move_to(client, document, "balance")
    confirmed = await client.paid(held["id"], "ann", "balance")
    assert (confirmed["state"], confirmed["due"]) == ("confirmed", None)

    async def order() -> Any:
        return book_connection.execute(
            "SELECT state, quantity, total, paid, refunded FROM orders WHERE reservation_id = %s",
            [held["id"]],
        ).fetchone()

    await eventually(order, lambda row: row == ("confirmed", 2, 10_000, 9_800, 0))
    stages = book_connection.execute(
        "SELECT stage, amount, status FROM payments WHERE reservation_id = %s ORDER BY at", [held["id"]]
    ).fetchall()
    assert stages == [("deposit", 200, "succeeded"), ("balance", 9_600, "succeeded")]
    offers = await client.audit(document["id"])
    assert offers["phone"] == {"sku": "phone", "stock": 100, "held": 0, "sold": 2, "available": 98}


async def test_an_unpaid_hold_expires_and_an_unpaid_balance_is_forfeited(
    client: Client, book_connection: psycopg.Connection
) -> None:
    document = await create(client, per_user=1)
    paid = await deposit_paid(client, document["id"], "ann")
    document["hold_seconds"] = 1  # once ann has paid, however long that took
    assert (await client.put(document)).status == 200
    idle = (await client.reserve(document["id"], "bob")).body
    assert (await client.in_state(idle["id"], "bob", "expired"))["due"] is None
    await move_to(client, document, "balance")
    asked = (await client.pay(paid["id"], "ann", "balance")).body
    await move_to(client, document, "closed")
    await client.in_state(paid["id"], "ann", "forfeited")
    assert_problem(await client.pay(paid["id"], "ann", "balance"), "payment_window_closed")
    offers = await client.audit(document["id"])
    assert offers["phone"]["available"] == 100

    async def told() -> Any:
        return book_connection.execute(
            "SELECT type, status FROM notifications WHERE reservation_id = %s ORDER BY created_at",
            [paid["id"]],
        ).fetchall()

    await eventually(told, lambda rows: ("forfeited", "sent") in rows)
    # The money that was under way comes after all: everything is still there, so it is taken.
    await client.settle_payment(asked["payment_id"])
    assert (await client.reservation(paid["id"], "ann"))["state"] == "confirmed"
    await client.audit(document["id"])


async def test_a_late_balance_without_stock_is_refunded_and_the_deposit_kept(
    client: Client, book_connection: psycopg.Connection
) -> None:
    document = await create(client, offers=[offer(stock=1)])
    paid = await deposit_paid(client, document["id"], "ann")
    await move_to(client, document, "balance")
    asked = (await client.pay(paid["id"], "ann", "balance")).body
    await move_to(client, document, "closed")
    await client.in_state(paid["id"], "ann", "forfeited")
    await move_to(client, document, "open")
    other = await deposit_paid(client, document["id"], "bob")
    await client.settle_payment(asked["payment_id"])
    assert (await client.reservation(paid["id"], "ann"))["state"] == "refunded"

    async def refunds() -> Any:
        return book_connection.execute(
            "SELECT payment_id, amount, status FROM refunds WHERE reservation_id = %s", [paid["id"]]
        ).fetchall()

    await eventually(refunds, lambda rows: rows == [(asked["payment_id"], asked["amount"], "succeeded")])
    assert other["state"] == "deposit_paid"
    await client.audit(document["id"])


@pytest.mark.parametrize(
    ("quantity", "steps", "worth", "expected"),
    [
        (1, [], 200, (5000, 200, 0, 4800)),
        (3, [], 100, (15_000, 300, 0, 14_700)),
        (2, [(10_000, 1_000), (9_000, 800)], 200, (10_000, 400, 1_000, 8_600)),
        (1, [(5_001, 1_000)], 200, (5000, 200, 0, 4800)),
        (1, [(4_999, 10), (100, 99)], 200, (5000, 200, 99, 4701)),
        (1, [(5_000, 4_000)], 5_000, (5000, 5000, 4_000, 0)),
        (4, [(20_000, 19_999)], 200, (20_000, 800, 19_999, 0)),
    ],
)
async def test_a_quote_and_a_reservation_agree_to_the_unit(
    client: Client, quantity: int, steps: list[tuple[int, int]], worth: int, expected: tuple[int, ...]
) -> None:
    """balance = price x quantity - deposit worth x quantity - the best step, and never below nothing."""
    save = {"spend_and_save": [{"spend": spend, "save": saved} for spend, saved in steps]} if steps else {}
    document = await create(client, offers=[offer(deposit_worth=worth)], **save)
    quoted = await client.quote(document["id"], "ann", sku="phone", quantity=quantity)
    held = (await client.reserve(document["id"], "ann", quantity=quantity)).body
    price = held["price"]
    assert quoted.body["price"] == price
    assert {name: quoted.body[name] for name in price} == price
    saved = sum(one["amount"] for one in price["discounts"])
    assert (price["total"], price["deposit_worth"], saved, price["balance"]) == expected
    assert price["deposit"] == 100 * quantity


async def test_a_basket_is_the_sum_of_its_reservations(client: Client) -> None:
    document = await create(
        client, offers=[offer(), offer(sku="case", price=700, deposit=10, deposit_worth=10)]
    )
    items = [{"sku": "phone", "quantity": 2}, {"sku": "case"}]
    quoted = (await client.quote(document["id"], "ann", items=items)).body
    assert [line["price"]["total"] for line in quoted["lines"]] == [10_000, 700]
    assert (quoted["total"], quoted["deposit"], quoted["balance"]) == (10_700, 210, 9_600 + 690)
    assert_problem(await client.quote(document["id"], "ann", items=[{"sku": "gone"}]), "offer_not_found")
    assert_problem(await client.quote(document["id"], "ann"), "invalid_request")
    assert_problem(await client.quote("no-such", "ann", sku="phone"), "campaign_not_found")


async def test_a_balance_of_nothing_confirms_itself_when_its_window_opens(client: Client) -> None:
    document = await create(client, offers=[offer(price=200)])
    paid = await deposit_paid(client, document["id"], "ann")
    assert paid["due"] is None
    await move_to(client, document, "balance")
    await client.in_state(paid["id"], "ann", "confirmed")
    await client.audit(document["id"])


async def test_more_is_charged_and_less_is_refunded(
    client: Client, book_connection: psycopg.Connection
) -> None:
    document = await create(client, per_user=3)
    paid = await deposit_paid(client, document["id"], "ann")
    more = (await client.amend(paid["id"], "ann", 3)).body
    assert (more["state"], more["quantity"], more["price"]["deposit"]) == ("deposit_paid", 3, 300)
    assert (more["due"]["stage"], more["due"]["amount"]) == ("deposit", 200)
    assert_problem(await client.amend(paid["id"], "ann", 4), "quota_exceeded")
    payment = (await client.pay(paid["id"], "ann", "deposit")).body
    assert (payment["amount"], payment["stage"]) == (200, "deposit")
    assert (await client.pay(paid["id"], "ann", "deposit")).body == payment
    topped = await client.paid(paid["id"], "ann", "deposit")
    assert (topped["due"]["stage"], topped["due"]["amount"]) == ("balance", 15_000 - 600)
    less = (await client.amend(paid["id"], "ann", 1)).body
    assert (less["quantity"], less["due"]["stage"], less["due"]["amount"]) == (1, "balance", 4_800)

    async def refunds() -> Any:
        return book_connection.execute(
            "SELECT amount, status, reason FROM refunds WHERE reservation_id = %s", [paid["id"]]
        ).fetchall()

    await eventually(refunds, lambda rows: rows == [(200, "succeeded", "amended")])
    offers = await client.audit(document["id"])
    assert offers["phone"]["held"] == 1
    await move_to(client, document, "balance")
    assert (await client.paid(paid["id"], "ann", "balance"))["state"] == "confirmed"
    await client.audit(document["id"])


async def test_a_change_whose_difference_is_not_paid_falls_back(client: Client) -> None:
    document = await create(client, hold_seconds=2)
    paid = await deposit_paid(client, document["id"], "ann", quantity=2)
    assert (await client.amend(paid["id"], "ann", 5)).body["due"]["amount"] == 300
    payment = (await client.pay(paid["id"], "ann", "deposit")).body
    back = await eventually(
        lambda: client.reservation(paid["id"], "ann"), lambda found: found["quantity"] == 2
    )
    assert (back["state"], back["price"], back["due"]["stage"]) == ("deposit_paid", paid["price"], "balance")
    # The difference is paid all the same, too late: it goes back.
    await client.settle_payment(payment["payment_id"])
    after = await client.reservation(paid["id"], "ann")
    assert (after["state"], after["quantity"]) == ("deposit_paid", 2)
    await client.audit(document["id"])


async def test_a_held_reservation_is_changed_before_it_is_paid(client: Client) -> None:
    document = await create(client, offers=[offer(stock=3)])
    held = (await client.reserve(document["id"], "ann")).body
    old = (await client.pay(held["id"], "ann", "deposit")).body
    changed = (await client.amend(held["id"], "ann", 3)).body
    assert (changed["state"], changed["quantity"], changed["due"]["amount"]) == ("held", 3, 300)
    assert changed["due"]["by"] == held["due"]["by"], "changing gains no time"
    assert_problem(await client.amend(held["id"], "ann", 4), "sold_out")
    assert_problem(await client.reserve(document["id"], "bob"), "sold_out")
    # Paid on the old page: the money for one goes back, and the hold for three stays.
    await client.settle_payment(old["payment_id"])
    assert (await client.reservation(held["id"], "ann"))["state"] == "held"
    assert (await client.paid(held["id"], "ann", "deposit"))["state"] == "deposit_paid"
    await client.audit(document["id"])
    assert_problem(await client.amend(held["id"], "bob", 1), "reservation_not_found")
    for wrong in (0, -1, "2", 1.5, None, 10**9):
        assert_problem(await client.amend(held["id"], "ann", wrong), "invalid_request")


@pytest.mark.parametrize("refundable", [True, False])
async def test_cancelling_refunds_the_deposit_where_the_campaign_says_so(
    client: Client, book_connection: psycopg.Connection, refundable: bool
) -> None:
    document = await create(client, deposit_refundable=refundable)
    paid = await deposit_paid(client, document["id"], "ann", quantity=2)
    cancelled = await client.cancel(paid["id"], "ann")
    assert (cancelled.status, cancelled.body["state"]) == (200, "cancelled")
    again = await client.cancel(paid["id"], "ann")
    assert (again.status, again.body["state"]) == (200, "cancelled")

    async def order() -> Any:
        return book_connection.execute(
            "SELECT state, paid, refunded FROM orders WHERE reservation_id = %s", [paid["id"]]
        ).fetchone()

    await eventually(order, lambda row: row == ("cancelled", 200, 200 if refundable else 0))
    offers = await client.audit(document["id"])
    assert offers["phone"]["available"] == 100


async def test_after_the_deposit_window_nothing_is_changed_or_cancelled(client: Client) -> None:
    document = await create(client)
    paid = await deposit_paid(client, document["id"], "ann")
    for phase in ("between", "balance"):
        await move_to(client, document, phase)
        assert_problem(await client.cancel(paid["id"], "ann"), "wrong_state")
        assert_problem(await client.amend(paid["id"], "ann", 2), "wrong_state")
        assert_problem(await client.reserve(document["id"], "bob"), "ended")
    await client.audit(document["id"])


async def test_a_flash_sale_is_not_amended(client: Client) -> None:
    campaign = await client.create()
    held = (await client.reserve(campaign, "ann")).body
    assert_problem(await client.amend(held["id"], "ann", 2), "wrong_state")


async def test_the_first_payers_get_the_gift_and_not_one_more(client: Client) -> None:
    gift = {"sku": "earbuds", "first": 7}
    document = await create(client, offers=[offer(gifts=[gift, {"sku": "case", "first": 1000}])])
    users = [f"u{number}" for number in range(20)]

    async def buy(user: str) -> Any:
        return await deposit_paid(client, document["id"], user)

    paid = await asyncio.gather(*(buy(user) for user in users))
    gifts = {one["user"]: [line["sku"] for line in one["lines"] if line.get("gift")] for one in paid}
    lucky = [user for user, skus in gifts.items() if "earbuds" in skus]
    assert len(lucky) == 7
    assert all("case" in skus for skus in gifts.values())
    # A gift comes back with its deposit, and the next payer has it; who has one does not get another.
    second = await deposit_paid(client, document["id"], lucky[0])
    assert "earbuds" not in [line["sku"] for line in second.get("lines", [])]
    returned = next(one for one in paid if one["user"] == lucky[1])
    await client.cancel(returned["id"], lucky[1])
    next_one = await deposit_paid(client, document["id"], "late")
    assert {"sku": "earbuds", "quantity": 1, "gift": True} in next_one["lines"]
    await client.audit(document["id"])


async def test_a_bundle_is_one_unit_and_several_lines(
    client: Client, book_connection: psycopg.Connection
) -> None:
    items = [{"sku": "phone"}, {"sku": "strap", "quantity": 2}]
    document = await create(client, offers=[offer(sku="set", items=items)])
    paid = await deposit_paid(client, document["id"], "ann", sku="set", quantity=3)
    lines = [{"sku": "phone", "quantity": 3}, {"sku": "strap", "quantity": 6}]
    assert paid["lines"] == lines

    async def found() -> Any:
        row = book_connection.execute("SELECT lines FROM orders WHERE reservation_id = %s", [paid["id"]])
        return row.fetchone()

    await eventually(found, lambda row: row == (lines,))
    offers = await client.audit(document["id"])
    assert offers["set"]["held"] == 3


async def test_each_reminder_is_sent_once_and_follows_the_windows(
    client: Client, book_connection: psycopg.Connection
) -> None:
    document = await create(client, reminder_seconds=[3_000, 1_800])
    paid = await deposit_paid(client, document["id"], "ann")

    async def told() -> list[str]:
        rows = book_connection.execute(
            "SELECT type FROM notifications WHERE reservation_id = %s ORDER BY created_at, notification_id",
            [paid["id"]],
        ).fetchall()
        return [row[0] for row in rows]

    await move_to(client, document, "balance")
    await eventually(told, lambda found: len(found) == 1)
    assert await told() == ["balance_opened"]
    # An hour is left; then less than 50 minutes, then less than 30.
    moved = in_phase(document, "balance")
    for minutes, count in ((45, 2), (20, 3)):
        closes = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        assert (await client.put(moved | {"balance_closes_at": closes})).status == 200
        await eventually(told, lambda found, count=count: len(found) == count)
    await client.put(moved)
    confirmed = await client.paid(paid["id"], "ann", "balance")
    assert confirmed["state"] == "confirmed"
    assert await told() == ["balance_opened", "balance_reminder", "balance_reminder"]
    await client.audit(document["id"])


async def test_a_balance_window_that_is_moved_moves_the_deadline(client: Client) -> None:
    document = await create(client)
    paid = await deposit_paid(client, document["id"], "ann")
    await move_to(client, document, "balance")
    await move_to(client, document, "open")
    assert (await client.reservation(paid["id"], "ann"))["state"] == "deposit_paid"
    assert_problem(await client.pay(paid["id"], "ann", "balance"), "payment_window_closed")
    await move_to(client, document, "balance")
    assert (await client.paid(paid["id"], "ann", "balance"))["state"] == "confirmed"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"balance_opens_at": "2020-01-01T00:00:00Z"}, ""),
        ({"balance_closes_at": "2020-01-01T00:00:00Z"}, ""),
        ({"balance_opens_at": None}, "balance_opens_at"),
        ({"entitlement": {"grants": 1}}, "entitlement"),
        ({"offers": [offer(deposit=0)]}, "offers[0].deposit"),
        ({"offers": [offer(deposit=300)]}, "offers[0]"),
        ({"offers": [offer(deposit_worth=5001)]}, "offers[0]"),
        ({"offers": [offer(gifts=[{"sku": "a", "first": 0}])]}, "offers[0].gifts[0].first"),
        ({"offers": [offer(gifts=[{"sku": "a", "first": 1}] * 2)]}, "offers[0]"),
        ({"offers": [{"sku": "phone", "price": 5000, "stock": 1}]}, "offers[0].deposit"),
        ({"spend_and_save": [{"spend": 100, "save": 100}]}, "spend_and_save[0]"),
        ({"reminder_seconds": [0]}, "reminder_seconds[0]"),
        ({"deposit_refundable": "yes"}, "deposit_refundable"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
async def test_a_presale_that_makes_no_sense_is_refused(
    client: Client, change: dict[str, Any], path: str
) -> None:
    document = {name: value for name, value in (presale() | change).items() if value is not None}
    assert_problem(await client.put(document), "invalid_request", path)
    assert_problem(await client.call("GET", f"/v1/campaigns/{document['id']}"), "campaign_not_found")


async def test_payments_are_told_apart_by_their_ids(client: Client) -> None:
    document = await create(client)
    held = (await client.reserve(document["id"], "ann")).body
    payment = (await client.pay(held["id"], "ann", "deposit")).body
    wrong = await client.notify("payment.succeeded", payment["payment_id"], 4_800)
    assert_problem(wrong, "payment_mismatch")
    unknown = await client.notify("payment.succeeded", f"{held['id']}.balance", 4_800)
    assert_problem(unknown, "payment_not_found")
    unknown = await client.notify(
        "payment.succeeded", f"{held['id']}.deposit-{uuid.uuid4().int % 9 + 2}", 100
    )
    assert_problem(unknown, "payment_not_found")
    assert (await client.reservation(held["id"], "ann"))["state"] == "held"
    assert (await client.notify("payment.succeeded", payment["payment_id"], 100)).status == 200
    assert (await client.reservation(held["id"], "ann"))["state"] == "deposit_paid"
    await client.audit(document["id"])
