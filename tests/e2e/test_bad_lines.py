"""Lines that are stood in by crowds, by odd names, and for what goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.wire import assert_problem
from tests.stack import Answer, Client, eventually

pytestmark = pytest.mark.usefixtures("clean_log")

ODD_NAMES = [
    "用户", "a/b", "/", "//", "phone/bob", "@", "a@b", "quota@ann", "#spend@ann", " ", "  two  spaces ", "-1",
    "0", "3 {}", "%00", "{7}", "*", "[a-z]", "\\", "'", '"', "👩‍👩‍👧", "e\u0301", "é", "\u202eabc", "x" * 128,
    "界" * 128,
]  # fmt: skip


def offers(stock: int, **changes: Any) -> list[dict[str, Any]]:
    return [{"sku": "phone", "price": 5000, "stock": stock, **changes}]


async def sold_out(client: Client, **changes: Any) -> tuple[str, str]:
    """A campaign whose one unit ann holds, and her reservation."""
    campaign = await client.create(**{"offers": offers(1), **changes})
    return campaign, (await client.reserve(campaign, "ann")).body["id"]


async def places(client: Client, user: str, campaign: str) -> Any:
    return (await client.call("GET", f"/v1/campaigns/{campaign}/waitlist", user=user)).body["places"]


async def leave(client: Client, user: str, campaign: str) -> Answer:
    return await client.call("DELETE", f"/v1/campaigns/{campaign}/waitlist", user=user)


async def act(client: Client, campaign: str, action: str) -> None:
    path = f"/v1/campaigns/{campaign}/actions"
    assert (await client.call("POST", path, service=True, json_body={"action": action})).status == 200


async def restock(client: Client, campaign: str, delta: int) -> None:
    path = f"/v1/campaigns/{campaign}/offers/phone/stock"
    assert (await client.call("POST", path, service=True, json_body={"delta": delta})).status == 200


async def has(client: Client, user: str, campaign: str) -> list[Any]:
    answer = await client.call("GET", f"/v1/reservations?campaign={campaign}", user=user)
    return [one for one in answer.body["reservations"] if one["state"] in ("held", "confirmed")]


async def put_again(client: Client, campaign: str, **changes: Any) -> Answer:
    shown = (await client.call("GET", f"/v1/campaigns/{campaign}")).body
    document = {name: value for name, value in shown.items() if name not in ("phase", "server_time")}
    document["offers"] = [
        {name: value for name, value in one.items() if name not in ("remaining", "sold_out")}
        for one in shown["offers"]
    ]
    return await client.call("PUT", f"/v1/campaigns/{campaign}", service=True, json_body=document | changes)


# Names


async def test_users_of_any_name_wait_are_served_pay_and_are_ranked(client: Client) -> None:
    campaign, held = await sold_out(client, per_user=1)
    for position, user in enumerate(ODD_NAMES, 1):
        assert (await client.join(campaign, user)).body["position"] == position
    for position, user in enumerate(ODD_NAMES, 1):
        assert [one["position"] for one in await places(client, user, campaign)] == [position], user
    for nobody in ("bob", "a", "b", "phone", "", "用", "x" * 127):
        if nobody:
            assert await places(client, nobody, campaign) == []
            assert (await leave(client, nobody, campaign)).status == 200
    await client.cancel(held, "ann")
    await restock(client, campaign, len(ODD_NAMES) - 1)
    for user in ODD_NAMES:
        (one,) = await eventually(lambda user=user: has(client, user, campaign), bool)
        assert one["user"] == user
        assert (await client.paid(one["id"], user))["state"] == "confirmed"
        assert_problem(await client.join(campaign, user), "quota_exceeded")
    path = f"/v1/campaigns/{campaign}/rankings/buyers?limit=100"
    for user in ODD_NAMES:
        ranked = (await client.call("GET", path, user=user)).body
        assert ranked["me"] == {"rank": 1, "user": user, "amount": 5000}
        assert [one["user"] for one in ranked["entries"]].count(user) >= 1
    strangers = (await client.call("GET", path)).body["entries"]
    assert len(strangers) == len(ODD_NAMES)
    assert all("***" in one["user"] and len(one["user"]) <= 5 for one in strangers)
    offer = (await client.audit(campaign))["phone"]
    assert (offer["sold"], offer["available"]) == (len(ODD_NAMES), 0)


# Crowds


async def test_three_hundred_wait_and_are_served_in_their_order(client: Client) -> None:
    campaign, held = await sold_out(client)
    users = [f"w{number}" for number in range(300)]
    joined = await asyncio.gather(*(client.join(campaign, user) for user in users))
    assert {answer.status for answer in joined} == {201}
    assert sorted(answer.body["position"] for answer in joined) == list(range(1, 301))
    by_place = [
        user for _, user in sorted((a.body["position"], u) for a, u in zip(joined, users, strict=True))
    ]
    # Every third gives up; those behind move up.
    await asyncio.gather(*(leave(client, user, campaign) for user in by_place[::3]))
    left = [user for number, user in enumerate(by_place) if number % 3]
    assert [one["position"] for one in await places(client, left[-1], campaign)] == [200]
    await restock(client, campaign, 149)
    await client.cancel(held, "ann")
    for user in left[:150]:
        await eventually(lambda user=user: has(client, user, campaign), bool)
    assert [one["position"] for one in await places(client, left[150], campaign)] == [1]
    assert await has(client, left[150], campaign) == []
    offer = (await client.audit(campaign))["phone"]
    assert (offer["held"], offer["available"]) == (150, 0)


async def test_joining_and_leaving_in_a_storm_leaves_one_place_or_none(client: Client) -> None:
    campaign, held = await sold_out(client, offers=offers(3))
    await client.reserve(campaign, "eve", quantity=2)
    storm: list[Any] = []
    for number in range(60):
        user = f"s{number % 6}"
        storm.append(client.join(campaign, user, quantity=1 + number % 3))
        storm.append(leave(client, user, campaign))
    answers = await asyncio.gather(*storm)
    assert {answer.status for answer in answers} == {200, 201}
    found = [place for n in range(6) for place in await places(client, f"s{n}", campaign)]
    assert sorted(place["position"] for place in found) == list(range(1, len(found) + 1))
    for number in range(6):
        await leave(client, f"s{number}", campaign)
    shown = await client.call("GET", f"/v1/campaigns/{campaign}")
    await client.cancel(held, "ann")

    async def free() -> Any:
        shown = await client.call("GET", f"/v1/campaigns/{campaign}")
        return shown.body["offers"][0]

    # Nobody waits: what comes back is for everybody.
    await eventually(free, lambda found: (found["remaining"], found["sold_out"]) == (1, False), 2)
    assert shown.status == 200
    assert (await client.reserve(campaign, "late")).status == 201
    await client.audit(campaign)


async def test_who_leaves_while_being_served_has_a_hold_or_nothing(client: Client) -> None:
    campaign = await client.create(offers=offers(20))
    held = [(await client.reserve(campaign, f"a{number}")).body["id"] for number in range(20)]
    waiting = [f"w{number}" for number in range(20)]
    for user in waiting:
        await client.join(campaign, user)
    leaving = [leave(client, user, campaign) for user in waiting]
    cancelling = [client.cancel(one, f"a{number}") for number, one in enumerate(held)]
    both = [one for pair in zip(cancelling, leaving, strict=True) for one in pair]
    assert {answer.status for answer in await asyncio.gather(*both)} == {200}
    for user in waiting:
        assert await places(client, user, campaign) == []
    holds = sum([len(await has(client, user, campaign)) for user in waiting])
    offer = (await client.audit(campaign))["phone"]
    assert (offer["held"], offer["available"]) == (holds, 20 - holds)


# What goes away


async def test_a_line_stands_still_while_the_campaign_is_paused(client: Client) -> None:
    campaign, held = await sold_out(client)
    assert (await client.join(campaign, "bob")).status == 201
    await act(client, campaign, "pause")
    assert_problem(await client.join(campaign, "cat"), "paused")
    await client.cancel(held, "ann")
    await asyncio.sleep(0.5)
    assert [one["position"] for one in await places(client, "bob", campaign)] == [1]
    assert await has(client, "bob", campaign) == []
    await act(client, campaign, "resume")
    await eventually(lambda: has(client, "bob", campaign), bool)
    await client.audit(campaign)


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_line_ends_with_its_campaign(client: Client, comes_back: bool) -> None:
    campaign, held = await sold_out(client)
    for user in ("bob", "cat"):
        await client.join(campaign, user)
    await act(client, campaign, "close")
    if comes_back:
        await client.cancel(held, "ann")
    for user in ("bob", "cat"):
        await eventually(lambda user=user: places(client, user, campaign), lambda found: found == [])
        assert await has(client, user, campaign) == []
        assert_problem(await client.join(campaign, user), "ended")
    await client.audit(campaign)


async def test_one_does_not_stand_in_line_before_the_doors_open(client: Client) -> None:
    later = {"opens_at": "2998-01-01T00:00:00Z", "closes_at": "2999-01-01T00:00:00Z"}
    campaign = await client.create(offers=offers(0), **later)
    assert "opens_at" in assert_problem(await client.join(campaign, "bob"), "not_started")
    await client.audit(campaign)


async def test_a_line_for_what_is_taken_off_and_put_on_again(client: Client) -> None:
    both = [*offers(1), {"sku": "case", "price": 1, "stock": 1}]
    campaign, held = await sold_out(client, offers=both)
    for user in ("bob", "cat"):
        await client.join(campaign, user)
    await client.cancel(held, "ann")
    (bobs,) = await eventually(lambda: has(client, "bob", campaign), bool)
    refused = await put_again(client, campaign, offers=both[1:])
    assert_problem(refused, "invalid_request", "offers")
    # Cancelled and taken off at once: whoever is first, nobody is given what is not there.
    await act(client, campaign, "pause")
    await client.cancel(bobs["id"], "bob")
    assert (await put_again(client, campaign, offers=both[1:])).status == 200
    await act(client, campaign, "resume")
    await asyncio.sleep(0.5)
    assert (await has(client, "cat", campaign), await places(client, "cat", campaign)) == ([], [])
    assert_problem(await client.join(campaign, "dan"), "offer_not_found")
    await client.audit(campaign)
    assert (await put_again(client, campaign, offers=both)).status == 200
    assert (await eventually(lambda: has(client, "cat", campaign), bool))[0]["sku"] == "phone"
    await client.audit(campaign)


async def test_who_wants_more_than_there_is_any_more_waits_in_vain(client: Client) -> None:
    campaign = await client.create(offers=offers(3))
    held = [(await client.reserve(campaign, user)).body["id"] for user in ("a1", "a2", "a3")]
    assert (await client.join(campaign, "big", quantity=3)).status == 201
    assert (await client.join(campaign, "small")).status == 201
    await client.cancel(held[0], "a1")
    await eventually(lambda: has(client, "small", campaign), bool)
    await client.cancel(held[1], "a2")
    await restock(client, campaign, -1)
    assert (await client.join(campaign, "other", quantity=9)).body["position"] == 2, (
        "there may be more one day"
    )
    assert [one["position"] for one in await places(client, "big", campaign)] == [1]
    await restock(client, campaign, 5)
    (got,) = await eventually(lambda: has(client, "big", campaign), bool)
    assert got["quantity"] == 3
    await client.audit(campaign)
