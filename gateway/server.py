"""Serving: one process of the gateway on a port that it shares with others, until told to stop."""

from __future__ import annotations

import asyncio
import gc

from aiohttp import web

from gateway.app import OPERATORS

DRAIN_SECONDS_MAX = 10.0
BACKLOG = 4_096
"""Connections that may wait to be accepted: the second that a sale opens, all come at once."""


async def serve(app: web.Application, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve until `stop`; then take nothing new, finish what is under way, and return."""
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=DRAIN_SECONDS_MAX, keepalive_timeout=75
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=BACKLOG, reuse_port=True)
    await site.start()
    # What lives this long lives for ever: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    try:
        await stop.wait()
    finally:
        app[OPERATORS].draining = True
        await runner.cleanup()
