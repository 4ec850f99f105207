"""Trade-ins, and the main orders that entitle to them, on the whole stack."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest

from tests.e2e.wire import assert_problem
from tests.stack import Answer, Client, eventually, token, trade_in


def order_id() -> str:
    return f"order-{uuid.uuid4().hex[:12]}"


def addon(**changes: Any) -> dict[str, Any]:
    return {"sku": "soundbar", "price": 900, "stock": 100, **changes}


async def create(client: Client, **changes: Any) -> str:
    document = trade_in(**changes)
    assert (await client.put(document)).status == 201
    return str(document["id"])


async def qualifying(client: Client, user: str, amount: int = 3000) -> str:
    order = order_id()
    assert (await client.report(order, user, ("tv", amount))).status == 201
    return order


async def take(client: Client, campaign: str, user: str, order: str | None, **body: Any) -> Answer:
    given = {"order_id": order} if order else {}
    return await client.reserve(campaign, user, sku=body.pop("sku", "soundbar"), **given, **body)


async def test_from_main_order_to_settled_line(client: Client, book_connection: psycopg.Connection) -> None:
    campaign = await create(client)
    order = await qualifying(client, "ann")
    quoted = (await client.quote(campaign, "ann", sku="soundbar", quantity=2, order_id=order)).body
    held = await take(client, campaign, "ann", order, quantity=2)
    assert held.status == 201
    assert (held.body["order_id"], held.body["price"]) == (order, quoted["price"])
    assert (held.body["due"]["stage"], held.body["due"]["amount"]) == ("full", 1800)
    assert (await client.paid(held.body["id"], "ann"))["state"] == "confirmed"

    async def row() -> Any:
        return book_connection.execute(
            "SELECT kind, state, main_order_id, lines, paid FROM orders WHERE reservation_id = %s",
            [held.body["id"]],
        ).fetchone()

    lines = [{"sku": "soundbar", "quantity": 2, "main_order_id": order}]
    await eventually(row, lambda found: found == ("trade_in", "confirmed", order, lines, 1800))

    async def main_order() -> Any:
        return book_connection.execute(
            "SELECT user_id, state, lines FROM main_orders WHERE order_id = %s", [order]
        ).fetchone()

    told = [{"sku": "tv", "category": "any", "amount": 3000}]
    await eventually(main_order, lambda found: found == ("ann", "paid", told))

    async def shown() -> Any:
        return (await client.call("GET", f"/v1/orders/{order}", service=True)).body

    # Every process hears of the campaign within a quarter of a second.
    used = {"campaign": campaign, "granted": 2, "used": 2}
    answer = await eventually(shown, lambda found: used in found["entitlements"])
    assert [one["id"] for one in answer["trade_ins"]] == [held.body["id"]]
    await client.audit(campaign)


async def test_not_eligible_says_why(client: Client) -> None:
    campaign = await create(
        client, tiers=["gold"], offers=[addon(), addon(sku="cable", tiers=["diamond"]), addon(sku="x")]
    )
    gold = token("ann", tier="gold")

    async def ask(order: str | None, user_token: str = gold, sku: str = "soundbar", n: int = 1) -> str:
        answer = await client.call(
            "POST",
            f"/v1/campaigns/{campaign}/reservations",
            json_body={"sku": sku, "quantity": n} | ({"order_id": order} if order else {}),
            headers={"Authorization": f"Bearer {user_token}"},
        )
        if answer.status == 201:
            return "held"
        return str(assert_problem(answer, "not_eligible")["reason"])

    order = await qualifying(client, "ann")
    small, others = await qualifying(client, "ann", 2999), await qualifying(client, "bob")
    other_goods = order_id()
    await client.report(other_goods, "ann", ("fridge", 99_999))
    assert await ask(order, token("ann")) == "wrong_tier"
    assert await ask(order, sku="cable") == "wrong_tier"
    for useless in (None, "never-reported", small, others, other_goods):
        assert await ask(useless) == "no_qualifying_order", useless
    assert await ask(order, n=3) == "used_up"
    assert await ask(order) == "held"
    assert await ask(order, sku="x") == "held"
    assert await ask(order) == "used_up"
    await client.audit(campaign)


async def test_an_order_is_reported_as_often_as_one_likes(client: Client) -> None:
    campaign = await create(client)
    order = order_id()
    answers = await asyncio.gather(*(client.report(order, "ann", ("tv", 3000)) for _ in range(10)))
    assert {answer.status for answer in answers} <= {200, 201}
    assert {answer.status for answer in answers} >= {201}
    took = await asyncio.gather(*(take(client, campaign, "ann", order) for _ in range(20)))
    assert sorted(answer.status for answer in took) == [201] * 2 + [403] * 18
    assert_problem(await client.report(order, "bob", ("tv", 3000)), "idempotency_mismatch")
    await client.audit(campaign)


@pytest.mark.parametrize("pay", [False, True], ids=["held", "paid"])
async def test_cancelling_the_main_order_takes_its_trade_ins_back_once(
    client: Client, book_connection: psycopg.Connection, pay: bool
) -> None:
    campaign = await create(client, per_user=2, offers=[addon(stock=2)])
    order = await qualifying(client, "ann")
    held = (await take(client, campaign, "ann", order, quantity=2)).body
    if pay:
        assert (await client.paid(held["id"], "ann"))["state"] == "confirmed"
    answers = await asyncio.gather(*(client.cancel_order(order) for _ in range(5)))
    assert {(answer.status, answer.body["state"]) for answer in answers} == {(200, "cancelled")}
    state = "refunded" if pay else "cancelled"
    assert (await client.reservation(held["id"], "ann"))["state"] == state
    assert [one["state"] for one in answers[0].body["trade_ins"]] == [state]
    if pay:

        async def refunds() -> Any:
            return book_connection.execute(
                "SELECT amount, status, reason FROM refunds WHERE reservation_id = %s", [held["id"]]
            ).fetchall()

        await eventually(refunds, lambda rows: rows == [(1800, "succeeded", "main_order_cancelled")])
    assert_problem(await take(client, campaign, "ann", order), "not_eligible")
    again = await qualifying(client, "ann")
    assert (await take(client, campaign, "ann", again, quantity=2)).status == 201, "limits are free again"
    offers = await client.audit(campaign)
    assert offers["soundbar"] == {"sku": "soundbar", "stock": 2, "held": 2, "sold": 0, "available": 0}


async def test_a_cancel_that_comes_before_its_order_holds(client: Client) -> None:
    campaign = await create(client)
    order = order_id()
    assert (await client.cancel_order(order)).body["state"] == "cancelled"
    reported = await client.report(order, "ann", ("tv", 3000))
    assert (reported.status, reported.body["state"]) == (200, "cancelled")
    assert_problem(await take(client, campaign, "ann", order), "not_eligible")


async def test_an_order_that_falls_below_the_threshold_loses_its_entitlement(client: Client) -> None:
    campaign = await create(client)
    order = order_id()
    await client.report(order, "ann", ("tv", 3000), ("rug", 500))
    held = (await take(client, campaign, "ann", order)).body
    # What is left after a partial refund: first of what does not count, then of what does.
    await client.report(order, "ann", ("tv", 3000))
    assert (await client.reservation(held["id"], "ann"))["state"] == "held"
    reduced = await client.report(order, "ann", ("tv", 2999))
    assert reduced.status == 200
    assert (await client.reservation(held["id"], "ann"))["state"] == "cancelled"
    # The first report once more, late: an order only ever shrinks.
    late = await client.report(order, "ann", ("tv", 3000), ("rug", 500))
    assert [line["amount"] for line in late.body["lines"]] == [2999]
    assert assert_problem(await take(client, campaign, "ann", order), "not_eligible")["reason"] == (
        "no_qualifying_order"
    )
    await client.audit(campaign)


async def test_groups_offers_and_users_have_limits_of_their_own(client: Client) -> None:
    campaign = await create(
        client,
        entitlement={"categories": ["any"], "min_spend": 1, "grants": 10},
        groups={"hot": {"per_entitlement": 2, "per_user": 3}},
        offers=[
            addon(sku="a", group="hot", per_entitlement=1),
            addon(sku="b", group="hot"),
            addon(sku="c", group="clearance", per_user=2),
        ],
    )
    one, two = await qualifying(client, "ann"), await qualifying(client, "ann")

    async def took(order: str, sku: str, n: int = 1) -> str:
        answer = await take(client, campaign, "ann", order, sku=sku, quantity=n)
        return "held" if answer.status == 201 else str(answer.code)

    assert await took(one, "a", 2) == "quota_exceeded", "one of this offer to an order"
    assert await took(one, "a") == "held"
    assert await took(one, "b", 2) == "quota_exceeded", "two hot ones to an order"
    assert await took(one, "b") == "held"
    assert await took(two, "b", 2) == "quota_exceeded", "three hot ones to a user"
    assert await took(two, "b") == "held"
    assert await took(one, "c", 2) == "held"
    assert await took(two, "c") == "quota_exceeded", "two of this offer to a user"
    await client.audit(campaign)


async def test_a_special_offer_has_a_condition_of_its_own(client: Client) -> None:
    special = addon(sku="projector", requires={"skus": ["tv"], "min_spend": 8000})
    campaign = await create(client, offers=[addon(), special])
    small, big = await qualifying(client, "ann", 3000), await qualifying(client, "ann", 8000)
    refused = await take(client, campaign, "ann", small, sku="projector")
    assert assert_problem(refused, "not_eligible")["reason"] == "no_qualifying_order"
    both = [
        (await take(client, campaign, "ann", big, sku=sku)).body["id"] for sku in ("projector", "soundbar")
    ]
    # Still enough for the campaign, no longer for the special offer: only that goes back.
    await client.report(big, "ann", ("tv", 4000))
    states = [(await client.reservation(one, "ann"))["state"] for one in both]
    assert states == ["cancelled", "held"]
    await client.audit(campaign)


async def test_a_trade_in_is_paid_with_its_main_order(client: Client) -> None:
    campaign = await create(client)
    order = await qualifying(client, "ann")
    held = (await take(client, campaign, "ann", order)).body
    body = {"reservation": held["id"], "amount": 900, "currency": "CNY", "provider_ref": "with-main-1"}

    async def pay(path: str = order, **changes: Any) -> Answer:
        return await client.call(
            "POST", f"/v1/orders/{path}/payments", service=True, json_body=body | changes
        )

    assert_problem(await pay(amount=899), "invalid_request", "amount")
    assert_problem(await pay(currency="EUR"), "invalid_request", "amount")
    assert_problem(await pay(order_id()), "reservation_not_found")
    assert_problem(await pay(reservation="x"), "invalid_request", "reservation")
    answers = await asyncio.gather(*(pay() for _ in range(5)))
    assert {(answer.status, answer.body["state"]) for answer in answers} == {(200, "confirmed")}
    assert_problem(await pay(provider_ref="another"), "wrong_state")
    forbidden = await client.call("POST", f"/v1/orders/{order}/payments", user="ann", json_body=body)
    assert_problem(forbidden, "forbidden")
    await client.audit(campaign)


async def test_an_order_is_for_every_trade_in_that_it_qualifies_for(client: Client) -> None:
    first, second = await create(client), await create(client)
    order = await qualifying(client, "ann")
    held = [(await take(client, one, "ann", order)).body["id"] for one in (first, second)]
    await client.cancel_order(order)
    assert [(await client.reservation(one, "ann"))["state"] for one in held] == ["cancelled"] * 2
    later = await create(client)
    kept = await qualifying(client, "bob")
    assert (await take(client, later, "bob", kept)).status == 201
    for campaign in (first, second, later):
        await client.audit(campaign)


async def test_a_late_payment_of_what_was_taken_back_is_refunded(client: Client) -> None:
    campaign = await create(client)
    order = await qualifying(client, "ann")
    held = (await take(client, campaign, "ann", order)).body
    payment = (await client.pay(held["id"], "ann")).body
    await client.cancel_order(order)
    await client.settle_payment(payment["payment_id"])
    assert (await client.reservation(held["id"], "ann"))["state"] == "refunded"
    await client.audit(campaign)


async def test_only_services_speak_of_main_orders(client: Client) -> None:
    assert_problem(await client.call("POST", "/v1/orders", user="ann", json_body={}), "forbidden")
    assert_problem(await client.call("POST", "/v1/orders/x/cancel"), "unauthenticated")
    assert_problem(await client.call("GET", "/v1/orders/never", service=True), "order_not_found")
    sale = await client.create()
    refused = await client.reserve(sale, "ann", order_id="order-1")
    assert_problem(refused, "invalid_request", "order_id")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"order_id": ""}, "order_id"),
        ({"order_id": "a/b"}, "order_id"),
        ({"order_id": "x" * 65}, "order_id"),
        ({"user": ""}, "user"),
        ({"user": 7}, "user"),
        ({"lines": {}}, "lines"),
        ({"lines": [{"sku": "tv", "category": "c", "amount": -1}]}, "lines[0].amount"),
        ({"lines": [{"sku": "tv", "category": "c", "amount": 1.5}]}, "lines[0].amount"),
        ({"lines": [{"sku": "tv", "category": "c"}]}, "lines[0].amount"),
        ({"paid_at": "yesterday"}, "paid_at"),
        ({"total": 1}, "total"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
async def test_a_report_that_makes_no_sense_is_refused(
    client: Client, change: dict[str, Any], path: str
) -> None:
    order = order_id()
    assert_problem(await client.report(order, "ann", ("tv", 3000), changes=change), "invalid_request", path)
    assert_problem(await client.call("GET", f"/v1/orders/{order}", service=True), "order_not_found")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"entitlement": {}}, "entitlement.grants"),
        ({"entitlement": {"grants": 0}}, "entitlement.grants"),
        ({"entitlement": {"grants": 1, "min_spend": -1}}, "entitlement.min_spend"),
        ({"entitlement": {"grants": 1, "skus": []}}, "entitlement.skus"),
        ({"groups": {"warm": {}}}, "groups.warm.[key]"),
        ({"offers": [addon(group="warm")]}, "offers[0].group"),
        ({"offers": [addon(deposit=1)]}, "offers[0].deposit"),
        ({"balance_opens_at": "2030-01-01T00:00:00Z"}, "balance_opens_at"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
async def test_a_trade_in_that_makes_no_sense_is_refused(
    client: Client, change: dict[str, Any], path: str
) -> None:
    assert_problem(await client.put(trade_in() | change), "invalid_request", path)
