"""One client that watches: its stream of server-sent events, for which nothing ever waits.

A watcher is sent the latest event or none: what it has not taken it is not sent again, and an event that
came and went meanwhile it never sees. So however slow it is, what waits for it is bounded.
"""

from __future__ import annotations

import asyncio
import socket
import time
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import orjson
from aiohttp import web

RETRY_MS = 2_000
HEARTBEAT_SECONDS = 15.0
STUCK_SECONDS_MAX = 5.0
"""How long what was sent may wait without a byte of it being taken."""
LINGER_SECONDS = 2.0
"""How long an ended stream may take to deliver its end."""
WAITING_BYTES_MAX = 16 * 1024
"""A watcher that more than this waits for is sent nothing new."""
SEND_BUFFER_BYTES = 32 * 1024
"""Of the kernel, for each watcher: it would lend megabytes to one that does not read."""
_NEVER_PAUSED = 2**30
"""The transport's limit, which we never come near: writing then never waits."""
_UNACKNOWLEDGED_MS_MAX = 30_000
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy that gathers a page of events before it passes them on
}
_RETRY = b"retry: %d\n\n" % RETRY_MS
_HEARTBEAT = b": heartbeat\n\n"


class Ending(StrEnum):
    """Why a stream ended."""

    GONE = "gone"
    SLOW = "slow"
    RESTART = "restart"


class Event(NamedTuple):
    """A state of what is watched, rendered once for all."""

    id: str
    body: bytes


def event(name: str, event_id: str, data: Any) -> Event:
    return Event(event_id, b"id: %b\n%b" % (event_id.encode(), _rendered(name, data)))


def _rendered(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def headers_only() -> web.Response:
    """The answer to a HEAD request: a stream without its body."""
    return web.Response(headers=_HEADERS)


class Watched(Protocol):
    """What a watcher watches; topic.Topic is."""

    latest: Event

    def join(self, watcher: Watcher) -> None: ...

    def leave(self, watcher: Watcher, ending: Ending) -> None: ...


class Watcher(web.StreamResponse):
    """The answer that endpoint.py hands over to `follow` once it has been counted and measured."""

    def __init__(self, topic: Watched, last_event_id: str | None) -> None:
        super().__init__(headers=_HEADERS)
        self.force_close()  # its connection has other limits than one for requests
        self._topic = topic
        self._known = last_event_id
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._connection: asyncio.Transport | None = None
        self._sent_at = self._taken_at = 0.0
        self._taken = -1

    async def follow(self, request: web.Request) -> None:
        """Stream until one side ends it."""
        ending = Ending.GONE
        self._topic.join(self)
        try:
            await self._open(request)
            ending = await self._ended
            if ending is not Ending.GONE:
                await self._close(ending)
        except (ConnectionError, RuntimeError):
            ending = Ending.GONE
        finally:
            self.end(ending)
            self._topic.leave(self, ending)

    async def offer(self, latest: Event) -> None:
        """Send it this, unless it knows it, or has not taken what it was sent before."""
        if latest.id != self._known and self._is_ready():
            self._known = latest.id
            await self._send(latest.body)

    async def tend(self, now: float) -> None:
        """To be done now and then: see whether it is there and reads, and what it has missed."""
        connection, writer = self._connection, self._payload_writer
        if connection is None or writer is None or self._ended.done():
            return
        if connection.is_closing():
            self.end(Ending.GONE)
            return
        waiting = connection.get_write_buffer_size()
        taken = writer.output_size - waiting
        if waiting == 0 or taken != self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at > STUCK_SECONDS_MAX:
            self.end(Ending.SLOW)
        await self.offer(self._topic.latest)
        if now - self._sent_at >= HEARTBEAT_SECONDS and self._is_ready():
            await self._send(_HEARTBEAT)

    def end(self, ending: Ending) -> None:
        if not self._ended.done():
            self._ended.set_result(ending)

    def _is_ready(self) -> bool:
        connection = self._connection
        return (
            connection is not None
            and not self._ended.done()
            and not connection.is_closing()
            and connection.get_write_buffer_size() <= WAITING_BYTES_MAX
        )

    async def _open(self, request: web.Request) -> None:
        if request.transport is None:
            raise ConnectionResetError
        connection = request.transport
        connection.set_write_buffer_limits(high=_NEVER_PAUSED)
        _bound(connection.get_extra_info("socket"))
        await self.prepare(request)
        latest = self._topic.latest
        body = b"" if latest.id == self._known else latest.body
        self._known = latest.id
        await self._send(_RETRY + body)
        self._connection = connection  # from now on it may be offered more

    async def _close(self, ending: Ending) -> None:
        """Say why, behind all that still waits; who does not take it in time is hung up on."""
        connection = self._connection
        await self.write(_rendered("end", {"reason": ending}))
        await self.write_eof()
        if connection is not None:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, connection.abort)

    async def _send(self, data: bytes) -> None:
        self._sent_at = time.monotonic()
        try:
            await self.write(data)
        except (ConnectionError, RuntimeError):  # uvloop's word for a connection that was closed just now
            self.end(Ending.GONE)


def _bound(connection: socket.socket | None) -> None:
    """Bound what the kernel keeps for a client that does not read, or is not there any more."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS_MAX)
