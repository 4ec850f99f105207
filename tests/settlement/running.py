"""Workers and relays that run while a block does, and then have ended for certain; servers that came back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from reservation.fence import PROVING_MS
from reservation.outcomes import StoreUnavailable
from reservation.redis_store import RedisStore
from reservation.tasks import end
from settlement.book import Book
from settlement.relay import Relay
from settlement.source import Source
from settlement.worker import Worker
from tests.stack import eventually


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


async def met_again(store: RedisStore) -> None:
    """Return when the store has met the server that came back: its first tries find the old one gone."""

    async def answers() -> bool:
        with suppress(StoreUnavailable):
            await store.now_ms()
            return True
        return False

    await eventually(answers, bool)


async def proved(store: RedisStore) -> None:
    """Return when whoever has something to say has had time for it."""
    await met_again(store)
    await eventually(store.fenced, lambda reason: "being proved" not in reason, PROVING_MS / 1000 + 10)
