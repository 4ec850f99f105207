"""A proxy of ours, on TCP: what a network may do to what passes, it does on demand."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

Address = tuple[str, int]
"""Host and port."""

_CHUNK_BYTES = 64 * 1024
_UNDER_WAY_MAX = 1_024
"""Chunks of one direction that are on their way. A sender that is ahead of them waits."""
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to each chunk that passes, in either direction. As it stands: nothing."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """At most so much more, at random. Order is kept, as TCP keeps it."""
    slice_bytes: int = 0
    """No chunk is longer; 0 leaves them as they are."""
    black_hole: bool = False
    """Nothing passes, and nobody is told. What was sent meanwhile is gone, and with it the connection."""


CLEAR = Weather()


class Proxy:
    """Passes on what connects to `at` to `target`. Faults are seeded."""

    def __init__(self, target: Address, at: Address, seed: str = "") -> None:
        self._target, self.at = target, at
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._passages: set[_Passage] = set()
        self._cuts, self._cuts_of = 0, b""
        self.weather = CLEAR
        self.cut = 0
        """Replies that were cut off so far."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self.at, backlog=1_024)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(passage.end() for passage in list(self._passages)))

    def reset(self) -> int:
        """Reset all connections, on both sides; how many there were."""
        passages = list(self._passages)
        for passage in passages:
            passage.reset()
        return len(passages)

    def cut_replies(self, count: int, of: bytes = b"") -> None:
        """Of the next so many requests with these bytes in them, pass on the request and throw away the
        reply, and with it the connection."""
        self._cuts, self._cuts_of = count, of

    def cuts(self, request: bytes) -> bool:
        """Whether the reply to this request is to be thrown away."""
        return self._cuts > 0 and self._cuts_of in request

    def cut_one(self) -> bool:
        """Throw one away, if there are any left to be."""
        if self._cuts == 0:
            return False
        self._cuts -= 1
        self.cut += 1
        return True

    def clear(self) -> None:
        """Let all pass again. Connections of which a black hole has swallowed something are reset."""
        was, self.weather = self.weather, CLEAR
        if was.black_hole:
            self.reset()

    def pieces(self, data: bytes) -> Iterator[tuple[float, bytes]]:
        """What becomes of a chunk: after how many seconds which bytes of it go on."""
        weather = self.weather
        if weather.black_hole:
            return
        size = weather.slice_bytes or len(data)
        for at in range(0, len(data), size):
            late = weather.delay_s + self._random.random() * weather.jitter_s
            yield late, data[at : at + size]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        passage = _Passage(self, (reader, writer), there)
        self._passages.add(passage)
        try:
            await passage.run()
        finally:
            self._passages.discard(passage)


class _Passage:
    """One connection, on both sides of the proxy."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._cut_next = False
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._task = asyncio.current_task()
        up = asyncio.create_task(self._pass(self._client[0], self._server[1], from_client=True))
        down = asyncio.create_task(self._pass(self._server[0], self._client[1], from_client=False))
        try:
            # Half-closed connections are nothing that our clients and servers make use of.
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the proxy closes: there is nobody to tell
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for _, writer in (self._client, self._server):
                writer.close()

    def reset(self) -> None:
        for _, writer in (self._client, self._server):
            _reset(writer)

    async def end(self) -> None:
        self.reset()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=1.0)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        ahead: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY_MAX)
        deliver = asyncio.create_task(_deliver(ahead, writer))
        try:
            with suppress(OSError):
                while data := await reader.read(_CHUNK_BYTES):
                    if from_client:
                        self._cut_next = self._cut_next or self._proxy.cuts(data)
                    elif self._cut_next and self._proxy.cut_one():
                        self.reset()
                        return
                    now = asyncio.get_running_loop().time()
                    for late, piece in self._proxy.pieces(data):
                        await ahead.put((now + late, piece))
            await ahead.put((0.0, b""))
            await deliver
        finally:
            deliver.cancel()


async def _deliver(ahead: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    """Write each piece when its time has come, in order. An empty one is the end."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while True:
            due, piece = await ahead.get()
            if not piece:
                return
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(piece)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Not an orderly end: the other side's next read fails."""
    connected = writer.get_extra_info("socket")
    if connected is not None:
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
