"""Workers and relays that run while a block does, and have ended for certain when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reservation.tasks import end
from settlement.book import Book
from settlement.relay import Relay
from settlement.source import Source
from settlement.worker import Worker


@asynccontextmanager
async def working(source: Source, book: Book) -> AsyncIterator[None]:
    async with _running(Worker(source, book)):
        yield


@asynccontextmanager
async def relaying(relay: Relay) -> AsyncIterator[None]:
    async with _running(relay):
        yield


@asynccontextmanager
async def _running(role: Worker | Relay) -> AsyncIterator[None]:
    await role.open()
    running = asyncio.create_task(role.run())
    try:
        yield
    finally:
        await end(running)
        await role.close()
