"""Main orders and trade-ins that were not meant this way."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import psycopg
import pytest

from tests.e2e.wire import assert_problem
from tests.stack import Answer, Client, eventually, in_phase, presale, sale, token, trade_in

pytestmark = pytest.mark.usefixtures("clean_log")


def order_id() -> str:
    return f"order-{uuid.uuid4().hex[:12]}"


def addon(**changes: Any) -> dict[str, Any]:
    return {"sku": "soundbar", "price": 900, "stock": 100, **changes}


async def create(client: Client, **changes: Any) -> dict[str, Any]:
    document = trade_in(**changes)
    assert (await client.put(document)).status == 201
    return document


async def qualifying(client: Client, user: str, amount: int = 3000) -> str:
    order = order_id()
    assert (await client.report(order, user, ("tv", amount))).status == 201
    return order


async def take(client: Client, campaign: str, user: str, order: str | None, **body: Any) -> Answer:
    given = {"order_id": order} if order else {}
    return await client.reserve(campaign, user, sku=body.pop("sku", "soundbar"), **given, **body)


# Reports


async def test_an_order_is_one_users_whoever_reports_it_at_once(client: Client) -> None:
    for _ in range(5):
        order, users = order_id(), [f"u{number}" for number in range(8)]
        answers = await asyncio.gather(*(client.report(order, user, ("tv", 3000)) for user in users))
        taken = [answer for answer in answers if answer.status == 201]
        assert len(taken) == 1
        for answer in answers:
            if answer.status != 201:
                assert_problem(answer, "idempotency_mismatch")
        shown = (await client.call("GET", f"/v1/orders/{order}", service=True)).body
        assert shown["user"] == taken[0].body["user"]


async def test_an_order_reported_again_is_as_it_was(client: Client) -> None:
    """With lines of nothing, lines that come twice, and five hundred of them."""
    for lines in (
        [("tv", 3000), ("gift", 0)],
        [("gift", 0)],
        [],
        [("tv", 1000)] * 3,
        [(f"sku-{number:03}", 10**12) for number in range(500)],
        [("tv", 10**12)] * 500,
        [("телевизор 电视/📺 '\"%s", 3000)],
    ):
        order = order_id()
        first = await client.report(order, "用户 one/@two", *lines)
        assert first.status == 201, lines
        again = await client.report(order, "用户 one/@two", *lines)
        shown = await client.call("GET", f"/v1/orders/{order}", service=True)
        assert first.body["lines"] == again.body["lines"] == shown.body["lines"]
        assert sum(line["amount"] for line in shown.body["lines"]) == sum(amount for _, amount in lines)


async def test_lines_that_come_twice_count_together(client: Client) -> None:
    document = await create(client)
    order = order_id()
    await client.report(order, "ann", ("tv", 1500), ("tv", 1500), ("rug", 1))
    assert (await take(client, document["id"], "ann", order, quantity=2)).status == 201
    # A line of another category is another line; of one that is reported again the lesser amount is kept.
    lines = [{"sku": "tv", "category": "any", "amount": 3001}, {"sku": "tv", "amount": 5000}]
    merged = await client.report(order, "ann", changes={"lines": lines})
    assert [(line["sku"], line["amount"]) for line in merged.body["lines"]] == [("tv", 3000)]
    await client.audit(document["id"])


async def test_reports_and_cancels_in_a_storm_leave_nothing_granted(client: Client) -> None:
    document = await create(client, entitlement={"skus": ["tv"], "min_spend": 3000, "grants": 20})
    order = await qualifying(client, "ann", 9000)
    storm: list[Any] = []
    for number in range(15):
        storm.append(take(client, document["id"], "ann", order))
        storm.append(client.report(order, "ann", ("tv", 9000 - number)))
    storm.append(client.cancel_order(order))
    answers = await asyncio.gather(*storm)
    assert {answer.status for answer in answers} <= {200, 201, 403, 503}, Counter(a.status for a in answers)
    shown = (await client.cancel_order(order)).body
    assert shown["state"] == "cancelled"

    async def states() -> set[str]:
        found = (await client.call("GET", f"/v1/orders/{order}", service=True)).body["trade_ins"]
        return {one["state"] for one in found}

    await eventually(states, lambda found: found <= {"cancelled"})
    assert (await client.audit(document["id"]))["soundbar"]["available"] == 100


# Reservations to an order


async def test_refusals_of_trade_ins_come_in_the_documented_order(client: Client) -> None:
    document = await create(client, tiers=["gold"], per_user=2, offers=[addon(stock=2)])
    campaign, order = document["id"], await qualifying(client, "ann")
    gold = token("ann", tier="gold")

    async def ask(key: str | None = None, bearer: str = gold, **body: Any) -> Answer:
        headers = {"Authorization": f"Bearer {bearer}"} | ({"Idempotency-Key": key} if key else {})
        wanted = {"sku": "soundbar", "order_id": order} | body
        wanted = {name: value for name, value in wanted.items() if value is not None}
        path = f"/v1/campaigns/{campaign}/reservations"
        return await client.call("POST", path, headers=headers, json_body=wanted)

    async def act(action: str) -> None:
        path = f"/v1/campaigns/{campaign}/actions"
        await client.call("POST", path, service=True, json_body={"action": action})

    held = await ask("once", quantity=2)
    assert held.status == 201
    # Not eligible before the quota, the quota before the stock.
    assert assert_problem(await ask(bearer=token("ann")), "not_eligible")["reason"] == "wrong_tier"
    assert assert_problem(await ask(order_id="x"), "not_eligible")["reason"] == "no_qualifying_order"
    assert assert_problem(await ask(quantity=9), "not_eligible")["reason"] == "used_up"
    another = await qualifying(client, "ann")
    assert_problem(await ask(order_id=another), "quota_exceeded")
    bobs = await qualifying(client, "bob")
    assert_problem(await ask(bearer=token("bob", tier="gold"), order_id=bobs), "sold_out")
    # The campaign before all of these, and a replay before the campaign.
    early = in_phase(document, "scheduled")
    early = {name: value for name, value in early.items() if not name.startswith("balance")}
    for change, code in ((early, "not_started"), (document, None)):
        assert (await client.put(change)).status == 200
        if code:
            assert_problem(await ask(bearer=token("eve"), order_id=None), code)
    for action, code in (("pause", "paused"), ("close", "ended")):
        await act(action)
        assert_problem(await ask(bearer=token("eve"), order_id=None), code)
        assert_problem(await ask(sku="gone", order_id=None), "offer_not_found")
        again = await ask("once", quantity=2)
        assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")
        for other in (
            {"quantity": 1},
            {"quantity": 2, "order_id": None},
            {"quantity": 2, "order_id": another},
        ):
            assert_problem(await ask("once", **other), "idempotency_mismatch")
    await client.cancel_order(order)
    again = await ask("once", quantity=2)
    assert (again.status, again.body["state"]) == (201, "cancelled"), "a replay shows what became of it"
    await client.audit(campaign)


async def test_an_order_is_used_in_several_campaigns_and_by_nobody_else(client: Client) -> None:
    documents = [await create(client) for _ in range(3)]
    order = await qualifying(client, "ann/bob@shop")
    made = []
    for document in documents:
        made.append((await take(client, document["id"], "ann/bob@shop", order, quantity=2)).body["id"])
        for other in ("ann", "ann/bob", "ann/bob@shop ", "bob@shop"):
            refused = await take(client, document["id"], other, order)
            assert assert_problem(refused, "not_eligible")["reason"] == "no_qualifying_order"
    for kind in (sale(), presale()):
        assert (await client.put(kind)).status == 201
        answer = await client.reserve(kind["id"], "ann/bob@shop", order_id=order)
        assert_problem(answer, "invalid_request", "order_id")
    await client.cancel_order(order)
    for one in made:
        assert (await client.reservation(one, "ann/bob@shop"))["state"] == "cancelled"
    for document in documents:
        await client.audit(document["id"])


async def test_the_same_payment_twice_by_two_ways_goes_back_once(
    client: Client, book_connection: psycopg.Connection
) -> None:
    """The shopper has the page open, the shop takes the money with the main order, the shopper pays too."""
    document = await create(client)
    order = await qualifying(client, "ann")
    held = (await take(client, document["id"], "ann", order)).body
    own = (await client.pay(held["id"], "ann")).body
    body = {"reservation": held["id"], "amount": 900, "currency": "CNY", "provider_ref": "with-main"}
    path = f"/v1/orders/{order}/payments"
    by_shop = await client.call("POST", path, service=True, json_body=body)
    assert (by_shop.status, by_shop.body["state"]) == (200, "confirmed")
    for _ in range(3):
        assert (await client.settle_payment(own["payment_id"])).body == {"webhook_status": 200}
    again = await client.call("POST", path, service=True, json_body=body)
    assert (again.status, again.body["state"]) == (200, "confirmed")
    assert (await client.pay(held["id"], "ann")).body["status"] == "succeeded"

    async def refunds() -> Any:
        return book_connection.execute(
            "SELECT payment_id, amount, status FROM refunds WHERE reservation_id = %s", [held["id"]]
        ).fetchall()

    await eventually(refunds, lambda rows: rows == [(own["payment_id"], 900, "succeeded")])
    await client.audit(document["id"])
    # And the other way round: what the shopper has paid cannot be paid with the order.
    second = (await take(client, document["id"], "ann", order)).body
    await client.paid(second["id"], "ann")
    body |= {"reservation": second["id"]}
    assert_problem(await client.call("POST", path, service=True, json_body=body), "wrong_state")
    await client.cancel_order(order)
    for one in (held, second):
        assert (await client.reservation(one["id"], "ann"))["state"] == "refunded"
    await client.audit(document["id"])


async def test_an_order_pays_for_its_own_trade_ins_only(client: Client) -> None:
    document = await create(client)
    orders = [await qualifying(client, "ann") for _ in range(2)]
    held = [(await take(client, document["id"], "ann", order)).body["id"] for order in orders]
    flash = (await client.reserve(await client.create(), "ann")).body["id"]
    body = {"amount": 900, "currency": "CNY", "provider_ref": "r"}
    for order, one in ((orders[0], held[1]), (orders[1], held[0]), (orders[0], flash), (order_id(), held[0])):
        path = f"/v1/orders/{order}/payments"
        answer = await client.call("POST", path, service=True, json_body=body | {"reservation": one})
        assert_problem(answer, "reservation_not_found")
    for one in held:
        assert (await client.reservation(one, "ann"))["state"] == "held"
    await client.audit(document["id"])


# Documents that change


async def test_what_entitles_may_change_while_trade_ins_live(client: Client) -> None:
    offers = [addon(group="hot"), addon(sku="cable", requires={"skus": ["tv"], "min_spend": 3000})]
    document = await create(client, groups={"hot": {"per_entitlement": 2}}, offers=offers)
    campaign, order = document["id"], await qualifying(client, "ann")
    held = [(await take(client, campaign, "ann", order, sku=sku)).body["id"] for sku in ("soundbar", "cable")]
    bare = {name: value for name, value in document.items() if name != "groups"}
    plain = [addon(), addon(sku="cable")]
    for entitlement in (
        {"skus": ["tv"], "min_spend": 3000, "grants": 1},
        {"skus": ["fridge"], "min_spend": 1, "grants": 5},
        {"categories": ["any"], "min_spend": 10**12, "grants": 5},
    ):
        changed = bare | {"entitlement": entitlement, "offers": plain}
        assert (await client.put(changed)).status == 200
        assert_problem(await take(client, campaign, "ann", order), "not_eligible")
        for one in held:
            assert (await client.reservation(one, "ann"))["state"] == "held", "what was granted stays granted"
        await client.audit(campaign)
    assert_problem(await client.put(bare | {"offers": [addon()]}), "invalid_request", "offers")
    assert (await client.put(document)).status == 200
    assert assert_problem(await take(client, campaign, "ann", order), "not_eligible")["reason"] == "used_up"
    await client.cancel_order(order)
    for one in held:
        assert (await client.reservation(one, "ann"))["state"] == "cancelled"
    await client.audit(campaign)


PRESALE_ONLY: dict[str, Any] = {
    "balance_opens_at": "2999-01-01T00:00:00Z",
    "balance_closes_at": "2999-01-02T00:00:00Z",
    "deposit_refundable": True,
    "reminder_seconds": [60],
}
TRADE_IN_ONLY: dict[str, Any] = {"entitlement": {"grants": 1}, "groups": {"hot": {"per_user": 1}}}
PRESALE_OFFER: dict[str, Any] = {"deposit": 1, "deposit_worth": 1, "gifts": [{"sku": "a", "first": 1}]}
TRADE_IN_OFFER: dict[str, Any] = {
    "group": "hot", "per_entitlement": 1, "requires": {"min_spend": 1}, "tiers": ["gold"]
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "foreign", "of_offers"),
    [
        (sale, PRESALE_ONLY | TRADE_IN_ONLY, PRESALE_OFFER | TRADE_IN_OFFER),
        (presale, TRADE_IN_ONLY, TRADE_IN_OFFER),
        (trade_in, PRESALE_ONLY, PRESALE_OFFER),
    ],
    ids=["flash_sale", "presale", "trade_in"],
)
async def test_a_kind_has_no_fields_of_another(
    client: Client, make: Any, foreign: dict[str, Any], of_offers: dict[str, Any]
) -> None:
    document = make()
    for name, value in foreign.items():
        assert_problem(await client.put(document | {name: value}), "invalid_request", name)
    for name, value in of_offers.items():
        changed = document | {"offers": [document["offers"][0] | {name: value}]}
        assert_problem(await client.put(changed), "invalid_request", f"offers[0].{name}")
    assert (await client.put(document)).status == 201
    kinds = {"flash_sale", "presale", "trade_in"} - {document["kind"]}
    for kind in kinds:
        other = {"flash_sale": sale, "presale": presale, "trade_in": trade_in}[kind](id=document["id"])
        assert_problem(await client.put(other), "invalid_request", "kind")


@pytest.mark.parametrize("make", [sale, presale, trade_in], ids=["flash_sale", "presale", "trade_in"])
async def test_a_document_is_shown_as_it_was_put_and_the_same_again_changes_nothing(
    client: Client, make: Any
) -> None:
    full: dict[str, Any] = {
        "title": "手机 & Co",
        "per_user": 3,
        "tiers": ["gold"],
        "hold_seconds": 60,
        "waitlist": True,
        "waitlist_hold_seconds": 30,
        "spend_and_save": [{"spend": 500, "save": 50}, {"spend": 100, "save": 99}],
    }
    offers = {
        "flash_sale": {},
        "presale": PRESALE_OFFER,
        "trade_in": TRADE_IN_OFFER | {"items": [{"sku": "a", "quantity": 2}, {"sku": "b", "quantity": 1}]},
    }
    whole = {
        "flash_sale": {},
        "presale": {"deposit_refundable": False, "reminder_seconds": [60, 3600]},
        "trade_in": {
            "entitlement": {"skus": ["tv"], "categories": ["c"], "min_spend": 0, "grants": 2},
            "groups": {"hot": {"per_entitlement": 1, "per_user": 2}, "clearance": {"per_user": 5}},
        },
    }
    document = make()
    kind = document["kind"]
    document |= full | whole[kind]
    document["offers"] = [document["offers"][0] | {"list_price": 9_999, "per_user": 2} | offers[kind]]
    times = [name for name in document if name.endswith("_at")]
    created = await client.put(document)
    assert created.status == 201, created
    now = {"remaining": 100, "sold_out": False}
    shown = {name: value for name, value in created.body.items() if name not in times}
    assert shown == {
        **{name: value for name, value in document.items() if name not in times},
        "offers": [document["offers"][0] | now],
        "phase": "open",
        "server_time": created.body["server_time"],
    }
    for same in (document, document | {name: created.body[name] for name in times}):
        again = await client.put(same)
        assert (again.status, again.body | {"server_time": ""}) == (200, created.body | {"server_time": ""})
