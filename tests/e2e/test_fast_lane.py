"""The fast lane gives the answers that the ordinary lane gives, in the order in which it was asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from redis.asyncio import Redis

from gateway.admission import CROWD
from reservation.keys import campaign_keys
from tests.e2e.test_up import children
from tests.stack import Answer, Client, Stack, in_phase, presale, token


@pytest.fixture
async def store(up: Stack) -> AsyncIterator[Redis]:
    """The stack's own Redis, as its gateways were told of it."""
    gateway = children(up, " gateway ")[0]
    environment = Path(f"/proc/{gateway}/environ").read_bytes().split(b"\0")
    url = next(one for one in environment if one.startswith(b"DOORBUSTER_REDIS_URL="))
    async with Redis.from_url(url.decode().partition("=")[2]) as client:
        yield client


class Line:
    """One connection, on which requests are written as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Line:
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0.02)  # so that the parts do not arrive as one

    async def answer(self) -> tuple[list[str], Any]:
        """The head's lines without what is different each time, and the body."""
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            length = next(int(line.split(": ")[1]) for line in head if line.startswith("Content-Length: "))
            body = json.loads(await self._reader.readexactly(length)) if length else None
        return [line for line in head if not line.startswith("Date: ")], body

    def close(self) -> None:
        self._writer.close()


def reserving(
    campaign: str, user: str, key: str | None, body: bytes = b'{"sku":"phone"}', *lines: str, tier: str = ""
) -> bytes:
    head = [
        f"POST /v1/campaigns/{campaign}/reservations HTTP/1.1",
        "Host: shop",
        f"Authorization: Bearer {token(user, tier=tier or None)}",
        "Content-Type: application/json",
        *([f"Idempotency-Key: {key}"] if key is not None else []),
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


ORDINARY = "Content-Encoding: identity"
"""A line that means nothing, and that the fast lane does not take."""


def comparable(answer: tuple[list[str], Any]) -> Any:
    head, body = answer
    body = dict(body)
    user, name = body.get("user"), body.get("id")
    if name is not None:
        head = [line.replace(name, "<id>") for line in head]
        at = {one: body.pop(one)[-1] for one in ("created_at", "updated_at")}
        body |= {"id": "<id>", "user": "<user>", "due": body["due"] | {"by": "<by>"}}
        head = [line for line in head if not line.startswith("Content-Length") or user is None] + [str(at)]
    return head, list(body.items())


@pytest.mark.parametrize("kind", ["flash sale", "presale", "bundle", "saving"])
@pytest.mark.parametrize("user", ["ann", "käthe", 'q"uo\\te', "100 % <b>", "~user~"])
async def test_both_lanes_give_the_same_answers(client: Client, up: Stack, kind: str, user: str) -> None:
    offer: dict[str, Any] = {"sku": "phone", "price": 5000, "stock": 3, "per_user": 2}
    changes: dict[str, Any] = {"offers": [offer]}
    if kind == "bundle":
        offer["items"] = [{"sku": "phone-body", "quantity": 1}, {"sku": "case", "quantity": 2}]
    if kind == "saving":
        changes["spend_and_save"] = [{"spend": 5000, "save": 7}]
    if kind == "presale":
        document = in_phase(presale(), "open")
        document["offers"][0] |= {"stock": 3, "per_user": 2}
        assert (await client.put(document)).status == 201
        campaign = document["id"]
    else:
        campaign = await client.create(**changes)
    line = await Line.open(up.url)
    try:
        answers = []
        for lines in ((ORDINARY,), ()):  # the fast lane knows only what was asked for before
            await line.send(reserving(campaign, user, uuid.uuid4().hex, b'{"sku":"phone"}', *lines))
            answers.append(await line.answer())
        assert answers[1][0][0] == "HTTP/1.1 201 Created"
        assert comparable(answers[0]) == comparable(answers[1])
        made = answers[1][1]
        assert made == await client.reservation(made["id"], user)
        for refusal, who in (("quota_exceeded", user), ("sold_out", "cat")):
            if refusal == "sold_out":
                assert (await client.reserve(campaign, "bob")).status == 201
            answers = []
            for lines in ((ORDINARY,), ()):  # the fast lane knows only what was asked for before
                await line.send(reserving(campaign, who, uuid.uuid4().hex, b'{"sku":"phone"}', *lines))
                answers.append(await line.answer())
            assert answers[1][1]["code"] == refusal
            assert answers[0] == answers[1]
    finally:
        line.close()


async def test_a_retry_on_the_fast_lane_is_the_same_reservation(client: Client, up: Stack) -> None:
    campaign, line = await client.create(), await Line.open(up.url)
    try:
        found = []
        for _ in range(3):
            await line.send(reserving(campaign, "ann", "the same key"))
            found.append(await line.answer())
        assert [head[0] for head, _ in found] == ["HTTP/1.1 201 Created"] * 3
        assert ["Idempotent-Replayed: true" in head for head, _ in found] == [False, True, True]
        assert found[0][1] == found[1][1] == found[2][1]
        await line.send(reserving(campaign, "ann", "the same key", b'{"sku":"phone","quantity":2}'))
        assert (await line.answer())[1]["code"] == "idempotency_mismatch"
    finally:
        line.close()


async def test_pipelined_requests_are_answered_in_order_whatever_lane_they_take(
    client: Client, up: Stack
) -> None:
    campaign, line = await client.create(), await Line.open(up.url)
    asked: list[tuple[bytes, Any]] = []
    for number in range(30):
        user = f"user-{number}"
        asked += [
            (reserving(campaign, user, "k"), user),
            (f"GET /v1/campaigns/{campaign} HTTP/1.1\r\nHost: shop\r\n\r\n".encode(), None),
            (reserving(campaign, user, "l", b'{"sku":"phone"}', ORDINARY), user),
            (reserving(campaign, user, "m"), user),
            (reserving(campaign, user, "m"), user),
        ]
    try:
        everything = b"".join(one for one, _ in asked)
        # In pieces that begin and end anywhere.
        await line.send(*(everything[at : at + 4_321] for at in range(0, len(everything), 4_321)))
        for _, user in asked:
            _, body = await line.answer()
            assert body.get("user") == user, body
    finally:
        line.close()


async def test_a_request_in_pieces_is_a_request(client: Client, up: Stack) -> None:
    campaign, line = await client.create(), await Line.open(up.url)
    try:
        whole = reserving(campaign, "ann", "k")
        for cut in (1, 30, len(whole) - 16, len(whole) - 1):
            await line.send(whole[:cut], whole[cut:])
            assert (await line.answer())[0][0] == "HTTP/1.1 201 Created"
    finally:
        line.close()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"campaign": "nowhere-to-be-found"}, 404),
        ({"body": b'{"sku":"none"}'}, 404),
        ({"body": b'{"sku":"phone","quantity":0}'}, 422),
        ({"body": b'{"sku":"phone","user":"bob"}'}, 422),
        ({"body": b"{"}, 400),
        ({"body": b""}, 400),
        ({"lines": ("Authorization: Bearer x",)}, 401),
        ({"lines": ("Idempotency-Key: other",)}, 422),
        ({"key": "x" * 256}, 422),
        ({"key": None}, 201),
        ({"lines": ("Connection: close",)}, 201),
        ({"lines": ("Expect: 100-continue",)}, 100),
    ],
)
async def test_what_is_unusual_is_answered_as_ever(
    client: Client, up: Stack, changes: dict[str, Any], status: int
) -> None:
    campaign, line = await client.create(), await Line.open(up.url)
    given = {"campaign": campaign, "user": "ann", "key": "k", "body": b'{"sku":"phone"}'} | changes
    lines = given.pop("lines", ())
    try:
        await line.send(reserving(campaign, "ann", "before"))
        await line.answer()
        await line.send(reserving(given["campaign"], "ann", given["key"], given["body"], *lines))
        head = (await asyncio.wait_for(line._reader.readuntil(b"\r\n\r\n"), 10)).decode()
        assert head.split(" ")[1] == str(status)
    finally:
        line.close()


async def test_a_changed_campaign_is_sold_as_it_is_now(client: Client, up: Stack) -> None:
    campaign, line = await client.create(), await Line.open(up.url)
    document = (await client.call("GET", f"/v1/campaigns/{campaign}")).body
    try:
        for price in (5000, 4000, 3000):
            fields = {name: document[name] for name in ("id", "kind", "currency", "opens_at", "closes_at")}
            offers = [{"sku": "phone", "price": price, "stock": 100}]
            assert (await client.put(fields | {"offers": offers})).status == 200
            await line.send(reserving(campaign, "ann", uuid.uuid4().hex))
            assert (await line.answer())[1]["price"]["unit"] == price
        for action, code in (("pause", "paused"), ("close", "ended")):
            path = f"/v1/campaigns/{campaign}/actions"
            await client.call("POST", path, service=True, json_body={"action": action})
            await line.send(reserving(campaign, "ann", uuid.uuid4().hex))
            assert (await line.answer())[1]["code"] == code
    finally:
        line.close()


async def test_while_the_store_lets_a_crowd_wait_who_comes_is_refused_at_once(
    client: Client, up: Stack
) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 1, "stock": 10_000}])
    (redis,) = children(up, "redis")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        patient = Client(up.url, session)
        os.kill(redis, signal.SIGSTOP)
        try:
            # With the store stopped, there is one way only to be answered. Enough for both processes.
            asked: list[asyncio.Task[Answer]] = []
            refused: set[asyncio.Task[Answer]] = set()
            async with asyncio.timeout(4):
                while not refused:
                    crowd = [f"user-{len(asked) + n}" for n in range(CROWD)]
                    asked += [asyncio.create_task(patient.reserve(campaign, user)) for user in crowd]
                    refused, _ = await asyncio.wait(asked, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
        finally:
            os.kill(redis, signal.SIGCONT)
        answers = await asyncio.gather(*asked)
    for answer in (task.result() for task in refused):
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "overloaded", "1")
    answered = Counter(one.status for one in answers)
    assert answered.keys() == {201, 503}
    assert (await client.audit(campaign))["phone"]["held"] == answered[201]


async def test_one_users_damaged_record_is_that_users_trouble_only(
    client: Client, up: Stack, store: Redis
) -> None:
    campaign = await client.create()
    users = campaign_keys(campaign).shard.users
    await store.hset(users, "damaged", b"\xc1")  # type: ignore[misc]
    try:
        async with aiohttp.ClientSession() as session:
            crowd = Client(up.url, session)
            names = [f"user-{n}" for n in range(30)]
            names.insert(17, "damaged")
            found = await asyncio.gather(*(crowd.reserve(campaign, name, key="k") for name in names))
    finally:
        await store.hdel(users, "damaged")  # type: ignore[misc]
    answers = dict(zip(names, found, strict=True))
    assert answers.pop("damaged").status == 500
    assert {one.status for one in answers.values()} == {201}


async def test_stock_that_came_back_is_sold_at_once_by_every_process(client: Client, up: Stack) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 1, "stock": 1}])
    assert (await client.reserve(campaign, "ann")).status == 201
    for round_ in range(20):
        # Every process has just said that there is nothing left.
        refused = await asyncio.gather(*(client.reserve(campaign, f"late-{n}") for n in range(8)))
        assert {one.code for one in refused} == {"sold_out"}
        path = f"/v1/campaigns/{campaign}/offers/phone/stock"
        assert (await client.call("POST", path, service=True, json_body={"delta": 8})).status == 200
        # Each on a connection of its own: the kernel spreads them.
        served = await asyncio.gather(*(client.reserve(campaign, f"early-{round_}-{n}") for n in range(8)))
        assert {one.status for one in served} == {201}


async def test_before_the_opening_both_lanes_say_when_it_is(client: Client, up: Stack) -> None:
    opens_at = (datetime.now(UTC) + timedelta(minutes=10)).isoformat(timespec="milliseconds")
    campaign, line = await client.create(opens_at=opens_at), await Line.open(up.url)
    try:
        answers = []
        for lines in ((ORDINARY,), (), ()):
            await line.send(reserving(campaign, "ann", uuid.uuid4().hex, b'{"sku":"phone"}', *lines))
            answers.append(await line.answer())
    finally:
        line.close()
    for head, body in answers:
        assert body["code"] == "not_started"
        assert datetime.fromisoformat(body["opens_at"]) == datetime.fromisoformat(opens_at)
        assert 590 <= body.pop("retry_after_s") <= 600
        assert [line.split(":")[0] for line in head] == [line.split(":")[0] for line in answers[0][0]]
    assert answers[0][1] == answers[1][1] == answers[2][1]
