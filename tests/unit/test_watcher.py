"""The bounds of a watcher: who does not read is dropped, costs little until then, and holds up nobody."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from gateway import topic, watcher
from gateway.admission import Admission
from gateway.endpoint import endpoint
from gateway.topic import Fanout, Topic
from gateway.watcher import Ending, Watcher, event
from tests.sse import Reader

EVENT_BYTES = 20_000


class Numbers(Topic):
    """Tells a number, in a long event."""

    stream = "numbers"


class Place:
    """One topic, served by a real server."""

    def __init__(self, watchers_max: int = 1_000) -> None:
        self.fanout = Fanout(watchers_max)
        self.admission = Admission(requests_max=3)
        self.url = ""
        self.port = 0

    @property
    def numbers(self) -> Numbers | None:
        return self.fanout.topic("numbers", Numbers)

    @property
    def watchers(self) -> set[Watcher]:
        return self.numbers.watchers if self.numbers else set()

    async def tell(self, number: int) -> None:
        assert self.numbers is not None
        await self.numbers.tell(numbered(number))

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.fanout.admit()
        found = self.numbers or Numbers(self.fanout, "numbers", numbered(0))
        return Watcher(found, request.headers.get("Last-Event-ID"))


def numbered(number: int) -> watcher.Event:
    return event("number", str(number), {"number": number, "ballast": "x" * EVENT_BYTES})


@asynccontextmanager
async def serving(place: Place) -> AsyncIterator[Place]:
    app = web.Application()
    app.router.add_get("/", endpoint(place.admission, "/", "GET", place.watch))
    runner = web.AppRunner(app, shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    place.port = runner.addresses[0][1]
    place.url = f"http://127.0.0.1:{place.port}/"
    try:
        yield place
    finally:
        await place.fanout.end_all()
        await runner.cleanup()
        await place.fanout.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "TEND_SECONDS", 0.02)
    monkeypatch.setattr(watcher, "STUCK_SECONDS_MAX", 0.5)
    monkeypatch.setattr(watcher, "LINGER_SECONDS", 0.5)


@asynccontextmanager
async def reading(place: Place, **headers: str) -> AsyncIterator[Reader]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.get(place.url, headers=headers) as answer,
    ):
        yield Reader(answer)


class Idler:
    """A client that asks for the stream and reads nothing until it is told to."""

    def __init__(self, place: Place) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.connect(("127.0.0.1", place.port))
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")

    async def read(self) -> bytes:
        """All there is, until the other side closes."""
        reader, writer = await asyncio.open_connection(sock=self.socket)
        try:
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def dropped(reason: str) -> float:
    labels = {"stream": "numbers", "reason": reason}
    return REGISTRY.get_sample_value("doorbuster_watchers_dropped_total", labels) or 0


async def test_who_does_not_read_is_told_and_dropped_and_the_others_see_everything() -> None:
    before = dropped("slow")
    async with serving(Place()) as place, reading(place) as reader:
        idler = Idler(place)
        await until(lambda: len(place.watchers) == 2)
        number = 0
        while len(place.watchers) == 2:
            number += 1
            started = time.monotonic()
            await place.tell(number)
            assert time.monotonic() - started < 2, "nobody waits for the idler"
            found = await reader.until(number=number)
            assert found.id == str(number)
            await asyncio.sleep(0)
            if number > 20:  # its buffers are full
                await until(lambda: len(place.watchers) == 1)
        assert dropped("slow") == before + 1
        sent = await idler.read()
        assert b'event: end\ndata: {"reason":"slow"}\n\n' in sent, "and could read why"
        assert sent.endswith(b"0\r\n\r\n")
        assert sent.count(b"event: number") < number, "what it could not take it was not sent"
        await place.tell(number + 1)
        await reader.until(number=number + 1)


async def test_what_waits_for_who_does_not_read_is_bounded() -> None:
    async with serving(Place()) as place:
        idler = Idler(place)
        await until(lambda: place.watchers)
        (idle,) = place.watchers
        most = 0
        for number in range(1, 300):
            await place.tell(number)
            assert idle._connection is not None
            most = max(most, idle._connection.get_write_buffer_size())
        assert 0 < most <= watcher.WAITING_BYTES_MAX + EVENT_BYTES + 1_000
        idler.socket.close()


async def test_who_never_reads_even_the_end_is_hung_up_on() -> None:
    async with serving(Place()) as place:
        idler = Idler(place)
        await until(lambda: place.watchers)
        (idle,) = place.watchers
        connection = idle._connection
        assert connection is not None
        for number in range(1, 50):
            await place.tell(number)
        await until(lambda: not place.watchers)
        await until(lambda: connection.get_write_buffer_size() == 0)
        idler.socket.close()


async def test_who_is_slow_and_not_stuck_stays_and_skips() -> None:
    async with serving(Place()) as place:
        idler = Idler(place)
        await until(lambda: place.watchers)
        for number in range(1, 200):
            await place.tell(number)
        reader, writer = await asyncio.open_connection(sock=idler.socket)
        seen = b""
        async with asyncio.timeout(20):
            while b"id: 199\n" not in seen:
                seen += await reader.read(4_096)
        assert place.watchers, "it is still there"
        assert seen.count(b"event: number") < 100, "what came and went meanwhile it never saw"
        writer.close()
        await until(lambda: not place.watchers)


async def test_who_has_gone_is_forgotten() -> None:
    before = {ending: dropped(ending) for ending in Ending}
    async with serving(Place()) as place:
        idlers = [Idler(place) for _ in range(20)]
        await until(lambda: len(place.watchers) == 20)
        for idler in idlers:
            idler.socket.close()
        await until(lambda: place.numbers is None)
    assert {ending: dropped(ending) for ending in Ending} == before, "nobody dropped them"


async def test_a_quiet_stream_has_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "HEARTBEAT_SECONDS", 0.1)
    async with serving(Place()) as place, reading(place) as reader:
        await reader.until(number=0)
        following = asyncio.create_task(reader.until(number=1))
        await until(lambda: reader.comments >= 3)
        await place.tell(1)
        await following


async def test_streams_are_no_requests_under_way_and_have_a_limit_of_their_own() -> None:
    async with serving(Place(watchers_max=10)) as place:
        idlers = [Idler(place) for _ in range(10)]
        await until(lambda: len(place.watchers) == 10)
        assert place.admission.requests == 0
        async with reading(place) as reader:
            assert reader.answer.status == 503
            assert (await reader.answer.json())["code"] == "overloaded"
        idlers.pop().socket.close()
        await until(lambda: len(place.watchers) == 9)
        async with reading(place) as reader:
            await reader.until(number=0)
        for idler in idlers:
            idler.socket.close()


async def test_every_stream_ends_with_the_process_also_one_that_comes_late() -> None:
    async with serving(Place()) as place, reading(place) as first:
        await first.until(number=0)
        stuck = Idler(place)
        await until(lambda: len(place.watchers) == 2)
        for number in range(1, 50):
            await place.tell(number)
        started = time.monotonic()
        await place.fanout.end_all()
        await first.until(reason="restart")
        assert await first.next() is None
        async with reading(place) as late:
            await late.until(number=0)
            await late.until(reason="restart")
            assert await late.next() is None
        await until(lambda: place.numbers is None)
        assert time.monotonic() - started < 3, "nothing is held up by who does not read"
        assert b'{"reason":"restart"}' in await stuck.read()


async def test_an_old_client_that_knows_no_chunks_can_watch_too() -> None:
    async with serving(Place()) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(b"GET / HTTP/1.0\r\nHost: shop\r\nLast-Event-ID: 0\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.0 200")
            assert await reader.readuntil(b"\n\n") == b"retry: 2000\n\n"
            await place.tell(1)
            assert (await reader.readuntil(b"\n\n")).startswith(b"id: 1\nevent: number\ndata: {")
        writer.close()
        await until(lambda: not place.watchers)
