"""Event streams: what is watched is seen, in whichever process it happens."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.test_up import children
from tests.e2e.wire import assert_problem, request
from tests.sse import Reader, Sent, watching
from tests.stack import Client, Stack, eventually, stack, token

pytestmark = pytest.mark.usefixtures("clean_log")

BOTH = 12
"""Connections that surely come to both gateway processes."""


async def open_many(
    stack: AsyncExitStack, client: Client, count: int, path: str, **told: Any
) -> list[Reader]:
    opening = (stack.enter_async_context(watching(client, path, **told)) for _ in range(count))
    return [await one for one in opening]


async def all_until(readers: list[Reader], **wanted: Any) -> list[Sent]:
    return await asyncio.gather(*(reader.until(**wanted) for reader in readers))


async def measured(client: Client, metric: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    text = (await client.call("GET", "/metrics")).body.decode()
    wanted = {f'{name}="{value}"' for name, value in labels.items()}
    found = re.findall(rf"^{metric}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for given, value in found if wanted <= set(given.split(",")))


def offer(remaining: int, sku: str = "phone") -> list[dict[str, Any]]:
    return [{"sku": sku, "remaining": remaining, "sold_out": remaining == 0}]


@pytest.fixture
async def watcher(up: Stack) -> Any:
    """A client with as many connections as it likes."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        yield Client(up.url, session)


# Campaigns


async def test_who_comes_sees_the_campaign_at_once(watcher: Client) -> None:
    campaign = await watcher.create()
    async with watching(watcher, f"/v1/campaigns/{campaign}/events") as reader:
        first = await reader.next()
        assert first is not None
        assert (first.name, reader.retry_ms) == ("campaign", 2000)
        assert first.data.keys() == {"phase", "server_time", "offers"}
        assert (first.data["phase"], first.data["offers"]) == ("open", offer(100))
        shown = datetime.fromisoformat(first.data["server_time"])
        assert abs(shown - datetime.now(UTC)) < timedelta(seconds=5)
        assert reader.answer.headers["Cache-Control"] == "no-cache"
        assert reader.answer.headers["X-Accel-Buffering"] == "no"


async def test_a_change_of_stock_is_seen_in_every_process(watcher: Client) -> None:
    campaign = await watcher.create()
    async with AsyncExitStack() as stack:
        readers = await open_many(stack, watcher, BOTH, f"/v1/campaigns/{campaign}/events")
        await all_until(readers, offers=offer(100))
        await watcher.reserve(campaign, "ann", quantity=40)
        seen = await all_until(readers, offers=offer(60))
        assert len({one.id for one in seen}) == 1, "an id is good in every process"
        await watcher.reserve(campaign, "bob", quantity=60)
        await all_until(readers, offers=offer(0))
        path = f"/v1/campaigns/{campaign}/offers/phone/stock"
        await watcher.call("POST", path, service=True, json_body={"delta": 5})
        await all_until(readers, offers=offer(5))


async def test_a_phase_is_seen_at_its_instant_and_not_before(watcher: Client) -> None:
    opens_at = datetime.now(UTC) + timedelta(seconds=2)
    closes_at = opens_at + timedelta(seconds=2)
    campaign = await watcher.create(opens_at=opens_at.isoformat(), closes_at=closes_at.isoformat())
    async with AsyncExitStack() as stack:
        readers = await open_many(stack, watcher, BOTH, f"/v1/campaigns/{campaign}/events")
        await all_until(readers, phase="scheduled")
        for phase, instant in (("open", opens_at), ("closed", closes_at)):
            for seen in await all_until(readers, phase=phase):
                late = datetime.fromisoformat(seen.data["server_time"]) - instant
                assert timedelta(milliseconds=-1) <= late < timedelta(seconds=3)
        assert {len(reader.events) for reader in readers} == {3}, "nothing but the phases"


async def test_what_a_merchant_does_is_seen(watcher: Client) -> None:
    campaign = await watcher.create()
    async with watching(watcher, f"/v1/campaigns/{campaign}/events") as reader:
        await reader.until(phase="open")
        for action, phase in (("pause", "paused"), ("resume", "open"), ("close", "closed")):
            path = f"/v1/campaigns/{campaign}/actions"
            await watcher.call("POST", path, service=True, json_body={"action": action})
            await reader.until(phase=phase)


async def test_hundreds_of_watchers_all_see_a_change(watcher: Client) -> None:
    campaign = await watcher.create()
    async with AsyncExitStack() as stack:
        readers = await open_many(stack, watcher, 500, f"/v1/campaigns/{campaign}/events")
        await all_until(readers, offers=offer(100))
        await watcher.reserve(campaign, "ann", quantity=7)
        await all_until(readers, offers=offer(93))


# Reservations


async def test_who_comes_sees_the_reservation_at_once(watcher: Client) -> None:
    held = (await watcher.reserve(await watcher.create(), "ann")).body
    async with watching(watcher, f"/v1/reservations/{held['id']}/events", user="ann") as reader:
        first = await reader.next()
        assert first == Sent("reservation", str(held["version"]), held)
        assert reader.retry_ms == 2000


async def test_every_state_is_seen_in_every_process(watcher: Client) -> None:
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    async with AsyncExitStack() as stack:
        readers = await open_many(stack, watcher, BOTH, f"/v1/reservations/{held}/events", user="ann")
        await all_until(readers, state="held")
        payment = (await watcher.pay(held, "ann")).body["payment_id"]
        await watcher.settle_payment(payment)
        paid = await all_until(readers, state="confirmed")
        now = await watcher.reservation(held, "ann")
        assert {one.id for one in paid} == {str(now["version"])}
        assert all(one.data == now for one in paid)
        for reader in readers:
            versions = [one.data["version"] for one in reader.events]
            assert versions == sorted(set(versions)), "each once, in order"


async def test_a_cancelled_reservation_is_seen(watcher: Client) -> None:
    held = (await watcher.reserve(await watcher.create(), "ann")).body["id"]
    async with watching(watcher, f"/v1/reservations/{held}/events", user="ann") as reader:
        await reader.until(state="held")
        await watcher.call("DELETE", f"/v1/reservations/{held}", user="ann")
        await reader.until(state="cancelled")


async def test_an_expired_reservation_is_seen_and_so_is_a_late_payment(watcher: Client) -> None:
    held = (await watcher.reserve(await watcher.create(hold_seconds=2), "ann")).body["id"]
    payment = (await watcher.pay(held, "ann")).body["payment_id"]
    async with watching(watcher, f"/v1/reservations/{held}/events", user="ann") as reader:
        await reader.until(state="held")
        await reader.until(state="expired")
        await watcher.settle_payment(payment)
        await reader.until(state="confirmed")


async def test_who_watches_many_sees_each(watcher: Client) -> None:
    campaign = await watcher.create()
    helds = [(await watcher.reserve(campaign, f"u{n}")).body["id"] for n in range(40)]
    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(
                watching(watcher, f"/v1/reservations/{held}/events", user=f"u{n}")
            )
            for n, held in enumerate(helds)
        ]
        await all_until(readers, state="held")
        for n, held in enumerate(helds):
            await watcher.call("DELETE", f"/v1/reservations/{held}", user=f"u{n}")
        for held, seen in zip(helds, await all_until(readers, state="cancelled"), strict=True):
            assert seen.data["id"] == held


# Coming back


async def test_who_comes_back_is_not_told_what_they_know(watcher: Client) -> None:
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    paths = {f"/v1/campaigns/{campaign}/events": None, f"/v1/reservations/{held}/events": "ann"}
    known: dict[str, str | None] = {}
    for path, user in paths.items():
        async with watching(watcher, path, user=user) as reader:
            first = await reader.next()
            assert first is not None
            known[path] = first.id
    async with AsyncExitStack() as stack:
        readers = {
            path: await open_many(stack, watcher, BOTH, path, user=user, last=known[path])
            for path, user in paths.items()
        }
        await watcher.call("DELETE", f"/v1/reservations/{held}", user="ann")
        for path, found in readers.items():
            for reader in found:
                seen = await reader.next()
                assert seen is not None
                assert seen.id != known[path], "the first thing that comes is new"
                assert seen.data.get("state", "cancelled") == "cancelled"


@pytest.mark.parametrize("last", ["", "0", "-1", "999999999999999999999", "é手", 'a, b; c="d"', "x" * 7_000])
async def test_who_knows_something_else_is_told(watcher: Client, last: str) -> None:
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    async with watching(watcher, f"/v1/campaigns/{campaign}/events", last=last) as reader:
        await reader.until(phase="open")
    async with watching(watcher, f"/v1/reservations/{held}/events", user="ann", last=last) as reader:
        await reader.until(state="held")


async def test_a_last_event_id_of_any_bytes_is_no_error(up: Stack, watcher: Client) -> None:
    campaign = await watcher.create()
    _, _, address = up.url.partition("//")
    host, _, port = address.partition(":")
    for last in (b"\xff\xfe\x80", b"\xc3(", b"\t \t", bytes(range(0x80, 0x100))):
        reader, writer = await asyncio.open_connection(host, int(port))
        path = f"/v1/campaigns/{campaign}/events"
        writer.write(request("GET", path, headers=[("Last-Event-ID", last)]))
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"retry: 2000" in await reader.readuntil(b"\n\n")
            assert b"event: campaign" in await reader.readuntil(b"\n\n")
        writer.transport.abort()


# Who may watch what


async def test_only_its_user_may_watch_a_reservation(up: Stack, watcher: Client) -> None:
    held = (await watcher.reserve(await watcher.create(), "ann")).body["id"]
    path = f"/v1/reservations/{held}/events"
    assert_problem(await watcher.call("GET", path), "unauthenticated")
    assert_problem(await watcher.call("GET", path, user="bob"), "reservation_not_found")
    assert_problem(await watcher.call("GET", path, service=True), "forbidden")
    unknown = f"/v1/reservations/{held[:-1]}{'a' if held[-1] != 'a' else 'b'}/events"
    assert_problem(await watcher.call("GET", unknown, user="ann"), "reservation_not_found")
    assert_problem(
        await watcher.call("GET", "/v1/reservations/x/events", user="ann"), "reservation_not_found"
    )


async def test_a_campaign_that_is_not_there_cannot_be_watched(watcher: Client) -> None:
    for name in ("no-such-campaign", "x" * 100, "%20", "UPPER"):
        assert_problem(await watcher.call("GET", f"/v1/campaigns/{name}/events"), "campaign_not_found")


async def test_a_stream_has_a_head(watcher: Client) -> None:
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    for path in (f"/v1/campaigns/{campaign}/events", f"/v1/reservations/{held}/events"):
        headers = {"Authorization": f"Bearer {token('ann')}"}
        async with watcher.session.head(watcher.url + path, headers=headers) as head:
            assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream")
            assert await head.read() == b""


async def test_a_stream_is_only_read(watcher: Client) -> None:
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    for path in (f"/v1/campaigns/{campaign}/events", f"/v1/reservations/{held}/events"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = await watcher.call(method, path, user="ann", json_body={"state": "confirmed"})
            assert_problem(answer, "method_not_allowed")
            assert answer.headers["Allow"] == "GET, HEAD"


async def test_what_is_over_is_shown_and_watched_on(watcher: Client) -> None:
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    await watcher.cancel(held, "ann")
    await watcher.call(
        "POST", f"/v1/campaigns/{campaign}/actions", service=True, json_body={"action": "close"}
    )

    async def closed() -> set[str]:
        shown = [await watcher.call("GET", f"/v1/campaigns/{campaign}") for _ in range(16)]
        return {one.body["phase"] for one in shown}  # of every process

    await eventually(closed, lambda found: found == {"closed"}, 2)
    async with watching(watcher, f"/v1/campaigns/{campaign}/events") as reader:
        first = await reader.next()
        assert first is not None
        assert (first.data["phase"], first.data["offers"]) == ("closed", offer(100))
        stock = f"/v1/campaigns/{campaign}/offers/phone/stock"
        await watcher.call("POST", stock, service=True, json_body={"delta": -1})
        assert (await reader.until(offers=offer(99))).data["phase"] == "closed"
    async with watching(watcher, f"/v1/reservations/{held}/events", user="ann") as reader:
        first = await reader.next()
        assert first is not None
        assert (first.data["state"], first.data["due"]) == ("cancelled", None)


async def test_a_thousand_who_come_and_go_leave_nothing_behind(up: Stack, watcher: Client) -> None:
    """Some are gone before they are answered, some in the middle of it, some after."""
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    host, _, port = up.url.removeprefix("http://").partition(":")
    own = [("Authorization", f"Bearer {token('ann')}")]
    sent = [
        request("GET", f"/v1/campaigns/{campaign}/events"),
        request("GET", f"/v1/reservations/{held}/events", headers=own),
    ]
    gate = asyncio.Semaphore(20)

    async def come_and_go(number: int) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent[number % 2])
            if number % 3:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
            if number % 3 == 2:
                await reader.readuntil(b"\n\n")
            writer.transport.abort()

    await asyncio.gather(*(come_and_go(number) for number in range(1_000)))

    async def left() -> float:
        return await measured(watcher, "doorbuster_watchers")

    await eventually(left, lambda found: found == 0)
    async with watching(watcher, f"/v1/reservations/{held}/events", user="ann") as reader:
        await reader.until(state="held")
        await watcher.cancel(held, "ann")
        await reader.until(state="cancelled")
    assert (await watcher.call("GET", "/readyz")).status == 200
    await watcher.audit(campaign)


# What operators see


async def test_watchers_are_counted_and_are_no_requests_under_way(watcher: Client) -> None:
    campaign = await watcher.create()
    held = (await watcher.reserve(campaign, "ann")).body["id"]
    paths = {"campaign": f"/v1/campaigns/{campaign}/events", "reservation": f"/v1/reservations/{held}/events"}
    route = "/v1/campaigns/{campaign}/events"
    before = await measured(watcher, "doorbuster_request_duration_seconds_count", route=route)
    async with AsyncExitStack() as stack:
        for path in paths.values():
            for reader in await open_many(stack, watcher, BOTH, path, user="ann"):
                await reader.next()
        for stream in paths:

            async def count(stream: str = stream) -> float:
                return await measured(watcher, "doorbuster_watchers", stream=stream)

            await eventually(count, lambda found: found == BOTH)
        opened = await measured(watcher, "doorbuster_request_duration_seconds_count", route=route)
        assert opened - before == BOTH, "measured when it starts"
    for stream in paths:

        async def left(stream: str = stream) -> float:
            return await measured(watcher, "doorbuster_watchers", stream=stream)

        await eventually(left, lambda found: found == 0)


async def test_who_never_reads_is_dropped_while_others_go_on(up: Stack, watcher: Client) -> None:
    skus = [f"sku-{number:04}" for number in range(1_000)]
    offers = [{"sku": sku, "price": 5000, "stock": 1_000} for sku in skus]
    campaign = await watcher.create(offers=offers)
    path = f"/v1/campaigns/{campaign}/events"

    async def dropped() -> float:
        labels = {"stream": "campaign", "reason": "slow"}
        return await measured(watcher, "doorbuster_watchers_dropped_total", **labels)

    before = await dropped()
    async with AsyncExitStack() as stack:
        readers = await open_many(stack, watcher, BOTH, path)
        idlers = []
        for _ in range(5):
            idler = stack.enter_context(socket.socket())
            idler.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            host, _, port = up.url.removeprefix("http://").partition(":")
            idler.connect((host, int(port)))
            idler.sendall(request("GET", path))
            idlers.append(idler)
        for number in range(10_000):
            assert (await watcher.reserve(campaign, f"u{number}", sku=skus[number % 1_000])).status == 201
            for reader in readers:
                assert await reader.next() is not None
            if await dropped() == before + len(idlers):
                break
        assert (await watcher.call("GET", "/readyz")).status == 200


# When parts go away


async def test_streams_outlive_the_store_and_end_with_the_process(tmp_path: Path) -> None:
    with stack(tmp_path / "data", "--workers", "2") as running:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session, AsyncExitStack() as opened:
            client = Client(running.url, session)
            campaign = await client.create()
            held = (await client.reserve(campaign, "ann")).body["id"]
            campaigns = await open_many(opened, client, BOTH, f"/v1/campaigns/{campaign}/events")
            path = f"/v1/reservations/{held}/events"
            reservations = await open_many(opened, client, BOTH, path, user="ann")
            await all_until(reservations, state="held")
            await all_until(campaigns, offers=offer(99))
            (redis,) = children(running, "redis")
            os.kill(redis, signal.SIGKILL)

            async def cancelled() -> int:
                return (await client.call("DELETE", f"/v1/reservations/{held}", user="ann")).status

            await eventually(cancelled, lambda status: status == 200, 60)
            await all_until(reservations, state="cancelled")
            await all_until(campaigns, offers=offer(100))
            running.process.send_signal(signal.SIGTERM)
            for reader in campaigns + reservations:
                last = await reader.next()
                assert last == Sent("end", None, {"reason": "restart"})
                assert await reader.next() is None
            assert running.process.wait(30) == 0
            assert b"Traceback" not in running.log.read_bytes()
