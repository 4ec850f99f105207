"""The proxy does what it is told to, to what passes, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from loadtests.faults.proxy import Address, Proxy, Weather
from tests.servers import free_port


class Echo:
    """A server that answers what it is sent, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.heard += data
            writer.write(data)
        writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    target: Address = ("127.0.0.1", server.sockets[0].getsockname()[1])
    async with server:
        found = Proxy(target, ("127.0.0.1", free_port()), "seed")
        await found.start()
        yield found
        await found.close()


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*proxy.at)


async def test_passes_on_what_is_sent(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    sent = bytes(range(256)) * 4_000
    writer.write(sent)
    async with asyncio.timeout(5):
        assert await reader.readexactly(len(sent)) == sent
    writer.close()


async def test_slices_and_keeps_the_order(proxy: Proxy) -> None:
    proxy.weather = Weather(slice_bytes=3, jitter_s=0.001)
    reader, writer = await connect(proxy)
    writer.write(b"0123456789" * 10)
    async with asyncio.timeout(5):
        assert await reader.readexactly(100) == b"0123456789" * 10
    writer.close()


async def test_delays(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    proxy.weather = Weather(delay_s=0.1)
    began = time.monotonic()
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    assert time.monotonic() - began >= 0.2, "once each way"
    writer.close()


async def test_cuts_the_reply_of_what_it_has_passed_on(proxy: Proxy, echo: Echo) -> None:
    proxy.cut_replies(1, of=b"SCRIPT")
    reader, writer = await connect(proxy)
    writer.write(b"other")
    assert await reader.readexactly(5) == b"other"
    writer.write(b"SCRIPT")
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert (echo.heard, proxy.cut) == (b"otherSCRIPT", 1)
    writer.close()
    reader, writer = await connect(proxy)
    writer.write(b"SCRIPT")
    assert await reader.readexactly(6) == b"SCRIPT", "one was to be cut"
    writer.close()


async def test_resets_what_is_open(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()


async def test_a_black_hole_swallows_and_its_end_is_told(proxy: Proxy, echo: Echo) -> None:
    reader, writer = await connect(proxy)
    proxy.weather = Weather(black_hole=True)
    writer.write(b"x")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.readexactly(1)
    assert echo.heard == b""
    proxy.clear()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()


async def test_refuses_where_nobody_is() -> None:
    proxy = Proxy(("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    await proxy.start()
    reader, writer = await connect(proxy)
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    await proxy.close()
