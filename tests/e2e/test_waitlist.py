"""The waitlist: what comes back is for those who stand in line, in their order."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from tests.e2e.wire import assert_problem
from tests.stack import Client, eventually, presale, trade_in


def offers(stock: int, **changes: Any) -> list[dict[str, Any]]:
    return [{"sku": "phone", "price": 5000, "stock": stock, **changes}]


async def held_by(client: Client, user: str, campaign: str) -> list[Any]:
    answer = await client.call("GET", f"/v1/reservations?campaign={campaign}", user=user)
    return [one for one in answer.body["reservations"] if one["state"] == "held"]


async def served(client: Client, user: str, campaign: str) -> Any:
    """The hold that standing in line has led to."""
    return (await eventually(lambda: held_by(client, user, campaign), bool))[0]


async def places(client: Client, user: str, campaign: str) -> Any:
    return (await client.call("GET", f"/v1/campaigns/{campaign}/waitlist", user=user)).body["places"]


async def leave(client: Client, user: str, campaign: str, query: str = "") -> Any:
    return await client.call("DELETE", f"/v1/campaigns/{campaign}/waitlist{query}", user=user)


async def test_what_comes_back_goes_down_the_line(
    client: Client, book_connection: psycopg.Connection
) -> None:
    campaign = await client.create(offers=offers(1), hold_seconds=60, waitlist_hold_seconds=1)
    first = (await client.reserve(campaign, "ann")).body
    for position, user in enumerate(("bob", "cat", "dan"), 1):
        joined = await client.join(campaign, user)
        place = {"sku": "phone", "quantity": 1, "position": position, "state": "waiting"}
        assert (joined.status, joined.body) == (201, place)
    assert (await client.cancel(first["id"], "ann")).status == 200
    bobs = await served(client, "bob", campaign)
    assert bobs["due"]["amount"] == 5000
    assert_problem(await client.reserve(campaign, "eve"), "sold_out")
    assert [one["position"] for one in await places(client, "cat", campaign)] == [1]
    # Bob does not pay: the unit moves on to Cat, who does.
    await client.in_state(bobs["id"], "bob", "expired")
    cats = await served(client, "cat", campaign)
    assert (await client.paid(cats["id"], "cat"))["state"] == "confirmed"
    assert [one["position"] for one in await places(client, "dan", campaign)] == [1]
    await client.audit(campaign)

    async def told() -> Any:
        return book_connection.execute(
            "SELECT user_id, type FROM notifications WHERE campaign = %s ORDER BY created_at", [campaign]
        ).fetchall()

    await eventually(told, lambda rows: rows == [("bob", "offered"), ("cat", "offered")])


async def test_one_stands_in_line_only_for_what_cannot_be_had(client: Client) -> None:
    campaign = await client.create(
        offers=[*offers(2, per_user=2), {"sku": "case", "price": 1, "stock": 0}], per_user=3, tiers=["gold"]
    )
    assert_problem(await client.join(campaign, "bob"), "not_eligible")
    campaign = await client.create(offers=[*offers(2, per_user=2), {"sku": "case", "price": 1, "stock": 5}])
    assert_problem(await client.join(campaign, "bob"), "wrong_state")
    assert_problem(await client.join(campaign, "bob", sku="gone"), "offer_not_found")
    assert_problem(await client.join("no-such", "bob"), "campaign_not_found")
    assert (await client.reserve(campaign, "ann", quantity=2)).status == 201
    assert_problem(await client.join(campaign, "ann"), "quota_exceeded")
    assert_problem(await client.join(campaign, "bob", quantity=3), "quota_exceeded")
    assert_problem(await client.join(campaign, "bob", quantity=0), "invalid_request", "quantity")
    assert (await client.join(campaign, "bob", quantity=2)).status == 201
    assert (await client.join(campaign, "bob", sku="case", quantity=6)).status == 201, (
        "there may be more one day"
    )
    assert (await client.reserve(campaign, "eve", sku="case")).status == 201, "and until then all may buy"
    closed = await client.create(offers=offers(0), waitlist=False)
    assert_problem(await client.join(closed, "bob"), "wrong_state")
    ended = await client.create(offers=offers(1))
    await client.reserve(ended, "ann")
    await client.call("POST", f"/v1/campaigns/{ended}/actions", service=True, json_body={"action": "close"})
    assert_problem(await client.join(ended, "bob"), "ended")


async def test_a_place_is_kept_changed_and_given_up(client: Client) -> None:
    campaign = await client.create(offers=offers(3))
    await client.reserve(campaign, "ann", quantity=3)
    for user in ("bob", "cat"):
        await client.join(campaign, user)
    assert (await client.join(campaign, "bob")).body["position"] == 1, "asking again keeps the place"
    assert (await client.join(campaign, "bob", quantity=2)).body["position"] == 2, (
        "another quantity is another"
    )
    assert await places(client, "cat", campaign) == [
        {"sku": "phone", "quantity": 1, "position": 1, "state": "waiting"}
    ]
    for _ in range(2):
        left = await leave(client, "cat", campaign, "?sku=phone")
        assert (left.status, left.body["state"]) == (200, "left")
    assert await places(client, "cat", campaign) == []
    assert [one["position"] for one in await places(client, "bob", campaign)] == [1]
    assert (await leave(client, "bob", campaign)).status == 200
    assert await places(client, "bob", campaign) == []
    assert_problem(await leave(client, "bob", "no-such"), "campaign_not_found")


async def test_when_nobody_waits_any_more_everybody_may_buy(client: Client) -> None:
    campaign = await client.create(offers=offers(1))
    held = (await client.reserve(campaign, "ann")).body
    await client.join(campaign, "bob")
    await leave(client, "bob", campaign)
    await client.cancel(held["id"], "ann")
    assert (await client.reserve(campaign, "eve")).status == 201


async def test_who_wants_more_than_there_is_keeps_the_place_and_blocks_nobody(client: Client) -> None:
    campaign = await client.create(offers=offers(3))
    ones = [(await client.reserve(campaign, f"a{number}")).body["id"] for number in range(3)]
    await client.join(campaign, "big", quantity=3)
    await client.join(campaign, "small")
    await client.cancel(ones[0], "a0")
    await served(client, "small", campaign)
    assert [one["position"] for one in await places(client, "big", campaign)] == [1]
    assert_problem(await client.reserve(campaign, "eve"), "sold_out")
    # What does for nobody in line is for everybody: or else who wants very many would stop the sale.
    await client.cancel(ones[1], "a1")
    eves = await client.reserve(campaign, "eve")
    assert eves.status == 201
    await client.cancel(ones[2], "a2")
    smalls = (await held_by(client, "small", campaign))[0]
    await client.cancel(smalls["id"], "small")
    await client.cancel(eves.body["id"], "eve")
    assert (await served(client, "big", campaign))["quantity"] == 3
    await client.audit(campaign)


async def test_a_restock_is_for_the_line_first_and_then_for_all(client: Client) -> None:
    campaign = await client.create(offers=offers(1))
    await client.reserve(campaign, "ann")
    for user in ("bob", "cat"):
        await client.join(campaign, user)
    path = f"/v1/campaigns/{campaign}/offers/phone/stock"
    await client.call("POST", path, service=True, json_body={"delta": 3})
    for user in ("bob", "cat"):
        await served(client, user, campaign)
    assert (await client.reserve(campaign, "eve")).status == 201
    await client.audit(campaign)


async def test_who_reached_their_quota_elsewhere_loses_the_place(client: Client) -> None:
    campaign = await client.create(offers=[*offers(1), {"sku": "case", "price": 1, "stock": 5}], per_user=1)
    held = (await client.reserve(campaign, "ann")).body
    for user in ("bob", "cat"):
        await client.join(campaign, user)
    assert (await client.reserve(campaign, "bob", sku="case")).status == 201
    await client.cancel(held["id"], "ann")
    await served(client, "cat", campaign)
    assert await places(client, "bob", campaign) == []
    await client.audit(campaign)


async def test_a_sold_out_presale_and_trade_in_have_a_line_too(client: Client) -> None:
    document = presale(offers=offers(1, deposit=100))
    assert (await client.put(document)).status == 201
    held = (await client.reserve(document["id"], "ann")).body
    await client.join(document["id"], "bob")
    await client.cancel(held["id"], "ann")
    bobs = await served(client, "bob", document["id"])
    assert (bobs["due"]["stage"], bobs["due"]["amount"]) == ("deposit", 100)

    swap = trade_in(offers=offers(1))
    assert (await client.put(swap)).status == 201
    for user in ("ann", "bob"):
        await client.report(f"{swap['id']}-{user}", user, ("tv", 3000))
    held = (await client.reserve(swap["id"], "ann", order_id=f"{swap['id']}-ann")).body
    assert_problem(await client.join(swap["id"], "bob"), "not_eligible")
    assert (await client.join(swap["id"], "bob", order_id=f"{swap['id']}-bob")).status == 201
    await client.cancel(held["id"], "ann")
    bobs = await served(client, "bob", swap["id"])
    assert bobs["order_id"] == f"{swap['id']}-bob"
    for campaign in (document["id"], swap["id"]):
        await client.audit(campaign)


async def test_the_line_is_served_before_new_buyers_under_load(client: Client) -> None:
    """Holds end, a hundred wait, and a crowd presses the button all the while: not one gets in between."""
    campaign = await client.create(offers=offers(20))
    held = [(await client.reserve(campaign, f"a{number}")).body["id"] for number in range(20)]
    waiting = [f"w{number}" for number in range(30)]
    for user in waiting:
        assert (await client.join(campaign, user)).status == 201
    stop = asyncio.Event()
    taken: list[str] = []

    async def snatch(number: int) -> None:
        while not stop.is_set():
            answer = await client.reserve(campaign, f"snatcher-{number}")
            assert answer.status == 201 or answer.code == "sold_out", answer
            if answer.status == 201:
                taken.append(f"snatcher-{number}")

    crowd = [asyncio.create_task(snatch(number)) for number in range(8)]
    await asyncio.gather(*(client.cancel(one, f"a{number}") for number, one in enumerate(held)))
    for user in waiting[:20]:
        await served(client, user, campaign)
    stop.set()
    await asyncio.gather(*crowd)
    assert taken == []
    for position, user in enumerate(waiting[20:], 1):
        assert [one["position"] for one in await places(client, user, campaign)] == [position]
    found = await client.audit(campaign)
    assert found["phone"] == {"sku": "phone", "stock": 20, "held": 20, "sold": 0, "available": 0}
