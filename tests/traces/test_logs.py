"""A sale in which all goes wrong: every line that any role logs is JSON, and none says who took part."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from reservation.keys import campaign_keys
from reservation.record import Record
from settlement.rabbit import EVENTS, Broker
from tests.e2e.test_up import children
from tests.servers import free_port
from tests.stack import COMMAND, SECRETS, Client, eventually, token
from tests.traces.conftest import SHOPPER_ADDRESS, Traced

USER = "rosalind-a-name-like-no-other"
KEY = "an-idempotency-key-like-no-other"
PROVIDER_REF = "a-reference-of-the-provider-like-no-other"
NOBODYS = "garbage-garbage-"
FRAME = {"event", "level", "role", "pid", "timestamp"}


@pytest.fixture
async def store(traced: Traced) -> AsyncIterator[Redis]:
    """The stack's own Redis, as its gateway was told of it."""
    gateway = children(traced.stack, " gateway ")[0]
    environment = Path(f"/proc/{gateway}/environ").read_bytes().split(b"\0")
    url = next(one for one in environment if one.startswith(b"DOORBUSTER_REDIS_URL="))
    async with Redis.from_url(url.decode().partition("=")[2]) as client:
        yield client


def logged(traced: Traced) -> list[dict[str, Any]]:
    """What the stack has logged so far. `up` itself also prints where it is, to standard output."""
    said = traced.stack.log.read_text().splitlines()
    return [json.loads(line) for line in said if not line.startswith(("ready ", "sample "))]


async def test_no_line_of_any_role_says_who_took_part(
    traced: Traced, client: Client, store: Redis, amqp_url: str
) -> None:
    async def said_by(role: str, event: str) -> list[dict[str, Any]]:
        return [line for line in logged(traced) if (line["role"], line["event"]) == (role, event)]

    # A sale: refused, stood in line for, notified, paid wrongly and rightly, and too late.
    campaign = await client.create(offers=[{"sku": "phone", "price": 5000, "stock": 1}], hold_seconds=60)
    first = (await client.reserve(campaign, "somebody before")).body["id"]
    assert (await client.reserve(campaign, USER, key=KEY)).code == "sold_out"
    await client.join(campaign, USER)
    await client.cancel(first, "somebody before")

    async def offered() -> Any:
        return (await client.call("GET", "/v1/reservations", user=USER)).body["reservations"]

    (held,) = await eventually(offered, bool)
    payment = (await client.pay(held["id"], USER)).body["payment_id"]
    wrong = await client.notify("payment.succeeded", payment, 1, provider_ref=PROVIDER_REF)
    assert wrong.code == "payment_mismatch"
    await client.notify("payment.succeeded", payment, 5000, provider_ref=PROVIDER_REF)
    await client.call("GET", f"/v1/campaigns/{USER}", headers={"Authorization": f"Bearer {token(USER)}x"})
    await client.call("POST", f"/{USER}", data=USER.encode())
    # What is not HTTP, and a record that nobody understands: defects, as far as a gateway and a sweeper know.
    reader, writer = await asyncio.open_connection(
        *traced.stack.url.removeprefix("http://").split(":"), local_addr=(SHOPPER_ADDRESS, 0)
    )
    writer.write(f"GET / HTTP/9.9\r\n{USER}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    keys, name = campaign_keys(campaign), f"{campaign}.{NOBODYS}"
    await store.hset(keys.reservations, NOBODYS, USER)  # type: ignore[misc]
    defect = await client.call("GET", f"/v1/reservations/{name}", user=USER)
    assert defect.code == "internal_error"
    await store.zadd(keys.shard.deadlines, {name: 1})
    try:
        await eventually(lambda: said_by("sweeper", "not_lapsed"), bool)
    finally:
        await store.zrem(keys.shard.deadlines, name)
        await store.hdel(keys.reservations, NOBODYS)  # type: ignore[misc]
    # An event that the book refuses, in words that quote it.
    record = Record("held", 1, f"{USER}\0", "phone", 1, (), 1, 1, 0, "", '{"k":"flash_sale","c":["CNY",1,1]}')
    broker = Broker(amqp_url)
    envelope = {"type": "cancelled", "id": name, "record": record._asdict(), "data": {}}
    await broker.publish(EVENTS, [envelope])
    await broker.close()
    # A process that dies.
    os.kill(children(traced.stack, " sweeper")[0], signal.SIGKILL)

    for role, event in (("worker", "dead_letter"), ("worker", "notification"), ("up", "ended")):
        await eventually(lambda: said_by(role, event), bool)  # noqa: B023
    assert await said_by("gateway", "payment_mismatch")
    (line,) = await said_by("gateway", "internal_error")
    assert line["trace_id"] == defect.body["trace_id"]
    assert line["exception"][0]["frames"]
    assert all(line.keys() >= FRAME for line in logged(traced))
    text = traced.stack.log.read_text()
    for personal in (USER, "rosalind", KEY, PROVIDER_REF, token(USER)[:30], SHOPPER_ADDRESS):
        assert personal not in text


async def test_a_role_whose_servers_are_away_says_so_in_json() -> None:
    gone, port = free_port(), free_port()
    environment = {
        **os.environ,
        **SECRETS,
        "DOORBUSTER_REDIS_URL": f"redis://127.0.0.1:{gone}",
        "DOORBUSTER_AMQP_URL": f"amqp://guest:guest@127.0.0.1:{gone}/",
        "DOORBUSTER_POSTGRES_DSN": f"postgresql://postgres@127.0.0.1:{gone}/postgres",
        "DOORBUSTER_TRACES_URL": f"http://127.0.0.1:{gone}",
        "DOORBUSTER_TRACES_SAMPLE": "1",
        "PYTHONWARNINGS": "default",
    }
    commands = {
        "gateway": ["gateway", "--port", str(port)],
        "relay": ["relay"],
        "worker": ["worker"],
        "sweeper": ["sweeper"],
    }
    processes = {
        role: await asyncio.create_subprocess_exec(
            *COMMAND, *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for role, command in commands.items()
    }
    for role, process in processes.items():
        assert process.stderr is not None
        lines: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while not any(line["level"] == "warning" for line in lines):
                lines.append(json.loads(await process.stderr.readline()))
        process.send_signal(signal.SIGTERM)
        out, rest = await asyncio.wait_for(process.communicate(), 30)
        assert out == b""
        lines += [json.loads(line) for line in rest.splitlines()]
        assert all(line.keys() >= FRAME and line["role"] == role for line in lines)
        assert process.returncode == 0
