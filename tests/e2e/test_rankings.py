"""Who spends most in a campaign."""

from __future__ import annotations

from typing import Any

from tests.e2e.wire import assert_problem
from tests.stack import Client, in_phase, presale


async def ranking(client: Client, campaign: str, user: str | None = None, query: str = "") -> Any:
    answer = await client.call("GET", f"/v1/campaigns/{campaign}/rankings/buyers{query}", user=user)
    assert answer.status == 200, answer
    return answer.body


async def test_buyers_are_ranked_by_what_they_have_paid(client: Client) -> None:
    campaign = await client.create()
    assert await ranking(client, campaign) == {
        "campaign": campaign, "currency": "CNY", "final": False, "entries": [], "me": None
    }  # fmt: skip
    for user, quantity in (("annabel", 2), ("bob", 1), ("cathy", 2), ("di", 1)):
        held = (await client.reserve(campaign, user, quantity=quantity)).body
        assert (await client.paid(held["id"], user))["state"] == "confirmed"
    await client.reserve(campaign, "only-held")
    found = await ranking(client, campaign, "bob")
    assert [(one["rank"], one["amount"]) for one in found["entries"]] == [
        (1, 10_000), (1, 10_000), (3, 5_000), (3, 5_000)
    ]  # fmt: skip
    assert {one["user"] for one in found["entries"]} == {"a***l", "c***y", "bob", "d***"}
    assert found["me"] == {"rank": 3, "user": "bob", "amount": 5_000}
    assert (await ranking(client, campaign, "eve"))["me"] is None
    assert len((await ranking(client, campaign, query="?limit=1"))["entries"]) == 1
    for query in ("?limit=0", "?limit=x", "?limit=101"):
        answer = await client.call("GET", f"/v1/campaigns/{campaign}/rankings/buyers{query}")
        assert_problem(answer, "invalid_request", "limit")
    assert_problem(await client.call("GET", "/v1/campaigns/no-such/rankings/buyers"), "campaign_not_found")
    path = f"/v1/campaigns/{campaign}/rankings/buyers"
    assert_problem(await client.call("GET", path, headers={"Authorization": "Bearer x"}), "unauthenticated")


async def test_money_that_went_back_does_not_count_and_the_end_is_final(client: Client) -> None:
    document = presale()
    await client.put(document)
    ids = {}
    for user in ("ann", "bob", "cat"):
        ids[user] = (await client.reserve(document["id"], user)).body["id"]
        await client.paid(ids[user], user, "deposit")
    await client.cancel(ids["cat"], "cat")
    await client.put(in_phase(document, "balance"))
    late = (await client.pay(ids["bob"], "bob", "balance")).body
    await client.paid(ids["ann"], "ann", "balance")
    before = await ranking(client, document["id"])
    assert [(one["user"], one["amount"]) for one in before["entries"]] == [("a***", 4_900), ("b***", 100)]
    await client.put(in_phase(document, "closed"))
    after = await ranking(client, document["id"], "bob")
    assert (after["final"], after["me"]) == (True, {"rank": 2, "user": "bob", "amount": 100})
    await client.in_state(ids["bob"], "bob", "forfeited")
    await client.settle_payment(late["payment_id"])
    await client.in_state(ids["bob"], "bob", "confirmed")
    assert await ranking(client, document["id"], "bob") == after, "what comes after the end changes nothing"
    await client.audit(document["id"])
