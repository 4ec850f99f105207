"""Redis loses everything while all is running; the book brings it back, and the sale goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import redis

from doorbuster.data_dir import stack_settings
from tests.stack import Client, Stack, eventually, in_phase, presale, stack, trade_in


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("own"), "--workers", "2", "--no-samples") as running:
        yield running


@pytest.fixture
async def shoppers(own: Stack) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(own.url, session)


def lose_everything(own: Stack) -> None:
    with redis.Redis.from_url(stack_settings(own.data_dir).redis_url or "") as client:
        client.flushall()


async def resumed(client: Client, campaign: str) -> None:
    path = f"/v1/campaigns/{campaign}/actions"
    answer = await client.call("POST", path, service=True, json_body={"action": "resume"})
    assert answer.status == 200, answer


async def lists(client: Client, *users: str) -> list[Any]:
    found = await asyncio.gather(*(client.call("GET", "/v1/reservations", user=user) for user in users))
    return [answer.body["reservations"] for answer in found]


async def test_redis_loses_everything_and_the_sale_goes_on(own: Stack, shoppers: Client) -> None:
    client = shoppers
    flash = await client.create(per_user=3)
    deposits, gadgets = presale(), trade_in()
    await client.put(deposits)
    await client.put(gadgets)
    ann = (await client.reserve(flash, "ann", key="a", quantity=2)).body
    bob = (await client.reserve(flash, "bob", key="b")).body
    await client.paid(ann["id"], "ann")
    cat = (await client.reserve(deposits["id"], "cat", key="c")).body
    await client.paid(cat["id"], "cat", "deposit")
    await client.report("shop-1", "dan", ("tv", 4000))
    await client.report("shop-2", "dan", ("tv", 4000))
    dan = (await client.reserve(gadgets["id"], "dan", key="d", sku="soundbar", order_id="shop-1")).body
    await client.paid(dan["id"], "dan")
    await asyncio.gather(*(client.audit(campaign) for campaign in (flash, deposits["id"], gadgets["id"])))
    users = ("ann", "bob", "cat", "dan")
    before = await lists(client, *users)

    lose_everything(own)
    refused = await client.reserve(flash, "eve")
    assert (refused.status, refused.code) == (503, "store_unavailable"), "not sold a second time"
    for path in ("/v1/reservations", f"/v1/reservations/{ann['id']}", f"/v1/campaigns/{flash}"):
        await eventually(
            lambda path=path: client.call("GET", path, user="ann"), lambda answer: answer.status == 503
        )
    looked = await asyncio.to_thread(own.run, "reconcile")
    assert looked.returncode == 1
    assert "campaign_lost: 3" in looked.stdout
    assert "reservation_lost: 4" in looked.stdout, "how much it is, before anything is done"
    assert "--repair" in looked.stdout
    mended = await asyncio.to_thread(own.run, "reconcile", "--repair", "--json")
    assert mended.returncode == 0, mended
    found = json.loads(mended.stdout)
    assert found["ok"]
    assert sorted(found["paused"]) == sorted([flash, deposits["id"], gadgets["id"]])
    audit = await asyncio.to_thread(own.run, "audit")
    assert audit.returncode == 0, audit.stdout
    again = await asyncio.to_thread(own.run, "reconcile")
    assert (again.returncode, again.stdout) == (0, "reconcile: Redis and PostgreSQL agree\n")

    assert await lists(client, *users) == before, "to the letter"
    paused = await client.reserve(flash, "eve")
    assert (paused.status, paused.code) == (409, "paused")
    for campaign in (flash, deposits["id"], gadgets["id"]):
        await resumed(client, campaign)
    replay = await client.reserve(flash, "ann", key="a", quantity=2)
    assert replay.headers["Idempotent-Replayed"] == "true"
    assert (await client.reserve(flash, "ann", quantity=2)).code == "quota_exceeded"
    assert (await client.reserve(flash, "eve")).status == 201
    await client.paid(bob["id"], "bob")

    assert (await client.put(in_phase(deposits, "balance"))).status == 200
    assert (await client.paid(cat["id"], "cat", "balance"))["state"] == "confirmed"

    soundbar = {"sku": "soundbar", "order_id": "shop-1"}
    assert (await client.reserve(gadgets["id"], "dan", **soundbar)).status == 201, "the second of two"
    assert (await client.reserve(gadgets["id"], "dan", **soundbar)).code == "not_eligible"
    assert (await client.reserve(gadgets["id"], "dan", sku="soundbar", order_id="shop-2")).status == 201
    await client.cancel_order("shop-1")
    await client.in_state(dan["id"], "dan", "refunded")
    for campaign in (flash, deposits["id"], gadgets["id"]):
        await eventually(
            lambda name=campaign: client.call("GET", f"/v1/campaigns/{name}/audit", service=True),
            lambda answer: answer.status == 200 and answer.body["ok"],
        )


def test_a_campaign_that_nobody_knows_is_said_in_one_line(own: Stack) -> None:
    asked = own.run("reconcile", "nothing-of-the-kind")
    assert asked.returncode == 2
    assert asked.stderr == "doorbuster: there is no campaign nothing-of-the-kind\n"
