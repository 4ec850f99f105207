"""Serving: one process of the gateway on a port that it shares with others, until told to stop."""

from __future__ import annotations

import asyncio
import gc
import socket

from aiohttp import web

from gateway.app import ADMISSION, FAST_LANE
from gateway.connection import Connection
from gateway.fast_lane import FastLane

DRAIN_SECONDS_MAX = 10.0
LEAVE_SECONDS = 0.5
"""Between the last accepted connection and the closing of idle ones: a client that is just sending on one
gets its answer, and the word to come back on another."""
BACKLOG = 4_096
"""Connections that may wait to be accepted: the second that a sale opens, all come at once."""


async def serve(app: web.Application, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve until `stop`; then take nothing new, finish what is under way, and return."""
    runner = _Runner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=DRAIN_SECONDS_MAX,
        keepalive_timeout=75,
        auto_decompress=False,  # bodies are small: what a compressed one grows to is only a risk
    )
    await runner.setup()
    listener = _listen(host, port)
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    await site.start()
    # What lives this long lives for ever: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    try:
        await stop.wait()
    finally:
        app[ADMISSION].draining = True
        late = _close_to_new(listener)
        await site.stop()
        for connection in late:
            assert runner.server is not None  # noqa: S101  (it was set up above)
            await asyncio.get_running_loop().connect_accepted_socket(runner.server, connection)
        await asyncio.sleep(LEAVE_SECONDS)
        await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _close_to_new(listener: socket.socket) -> list[socket.socket]:
    """Take what has connected already, and let nothing more in. To close a listener resets what waits in
    it, and those clients were told that they are connected."""
    waiting = []
    while True:
        try:
            waiting.append(listener.accept()[0])
        except BlockingIOError:
            break
    listener.shutdown(socket.SHUT_RD)
    return waiting


class _Server(web.Server):
    lane: FastLane

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self.lane, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(made.request_handler, request_factory=made.request_factory, **self._kwargs)
        server.lane = self.app[FAST_LANE]
        return server
