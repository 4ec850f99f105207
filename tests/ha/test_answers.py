"""Refused, not made, or unknown: and whoever asks again with the same key is told the truth."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import psycopg
import pytest

from tests.ha.losing import Way, way_to
from tests.servers import free_port, listens, wait_until
from tests.stack import COMMAND, SECRETS, Answer, Client, eventually

LANES = {"fast": {}, "ordinary": {"order_id": None}}
"""What the fast lane has never seen written like that goes to the ordinary one."""


@dataclass
class Shop:
    """A gateway that reaches its store over a way that loses things."""

    client: Client
    way: Way

    async def ready(self) -> None:
        async def asks() -> int:
            return (await self.client.call("GET", "/readyz")).status

        await eventually(asks, lambda status: status == 200)


@pytest.fixture(scope="module")
def way(redis_server_url: str) -> Iterator[Way]:
    with way_to(int(redis_server_url.rpartition(":")[2].partition("/")[0])) as found:
        yield found


@pytest.fixture(scope="module")
def gateway_url(way: Way, postgres_server_dsn: str) -> Iterator[str]:
    with psycopg.connect(postgres_server_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE answers TEMPLATE template_book")
    port = free_port()
    environment = {
        "DOORBUSTER_REDIS_URL": f"redis://127.0.0.1:{way.port}/0",
        "DOORBUSTER_POSTGRES_DSN": postgres_server_dsn.replace("/postgres?", "/answers?"),
    }
    command = [*COMMAND, "gateway", "--port", str(port)]
    gateway = subprocess.Popen(command, env={**os.environ, **SECRETS, **environment})
    try:
        wait_until(lambda: listens(port), "the gateway listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        gateway.terminate()
        gateway.wait(30)


@pytest.fixture
async def shop(way: Way, gateway_url: str) -> AsyncIterator[Shop]:
    async with aiohttp.ClientSession() as session:
        found = Shop(Client(gateway_url, session), way)
        await found.ready()
        yield found


def said(answer: Answer) -> tuple[int, str | None, Any]:
    return answer.status, answer.code, answer.body.get("outcome")


UNKNOWN = (503, "store_unavailable", "unknown")
NOT_MADE = (503, "store_unavailable", "not_made")


@pytest.mark.parametrize("lane", LANES)
async def test_an_answer_that_was_lost_is_found_by_asking_again(shop: Shop, lane: str) -> None:
    client = shop.client
    campaign = await client.create()
    for user in ("warms", "up"):
        assert (await client.reserve(campaign, user, **LANES[lane])).status == 201
    shop.way.lose_the_answer_to(b"loses")
    lost = await client.reserve(campaign, "loses", key="k", **LANES[lane])
    assert said(lost) == UNKNOWN
    assert lost.headers["Retry-After"] == "1"
    await shop.ready()
    again = await client.reserve(campaign, "loses", key="k", **LANES[lane])
    assert (again.status, again.headers.get("Idempotent-Replayed")) == (201, "true"), again
    shop.way.lose_the_answer_to(b"cancelled")
    held = again.body["id"]
    assert said(await client.cancel(held, "loses")) == UNKNOWN
    await shop.ready()
    assert (await client.cancel(held, "loses")).body["state"] == "cancelled"
    mismatched = await client.reserve(campaign, "loses", key="k", quantity=2)
    assert said(mismatched) == (422, "idempotency_mismatch", None), "a refusal is none of both"
    assert await left(client, campaign) == 98


@pytest.mark.parametrize("lane", LANES)
async def test_who_asks_a_store_that_is_away_is_told_at_once_that_nothing_was_made(
    shop: Shop, lane: str
) -> None:
    client = shop.client
    campaign = await client.create()
    held = await client.reserve(campaign, "ann", key="k", **LANES[lane])
    shop.way.cut()
    began = time.monotonic()
    for n in range(20):
        assert said(await client.reserve(campaign, f"bob-{n}", key="k", **LANES[lane])) == NOT_MADE
    assert said(await client.cancel(held.body["id"], "ann")) == NOT_MADE
    assert time.monotonic() - began < 2, "nobody is kept waiting"
    shop.way.start()
    await shop.ready()
    made = await client.reserve(campaign, "bob-0", key="k", **LANES[lane])
    assert (made.status, made.headers.get("Idempotent-Replayed")) == (201, None), made
    replayed = await client.reserve(campaign, "ann", key="k", **LANES[lane])
    assert (replayed.status, replayed.headers.get("Idempotent-Replayed")) == (201, "true")
    assert await left(client, campaign) == 98


async def left(client: Client, campaign: str) -> int:
    async def remaining() -> int:
        found = await client.call("GET", f"/v1/campaigns/{campaign}")
        return int(found.body["offers"][0]["remaining"])

    return int(await eventually(remaining, lambda n: n == 98))
