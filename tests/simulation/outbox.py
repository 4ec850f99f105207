"""The outbox as one reader takes it: outbox.Outbox, over the made-up store. And the store's dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from reservation.envelope import Envelope
from reservation.outbox import IDLE_MS_MIN, READ_ENTRIES_MAX, Entry
from settlement.dead_letters import DeadLetter
from tests.simulation.store import StoreServer
from tests.simulation.wire import Process, Wire

BLOCK_SECONDS = 5.0
"""Longer than it is: what is new wakes who waits all the same, and looking for nothing takes time."""


class MemoryOutbox:
    """settlement.source.Reader."""

    def __init__(self, wire: Wire, process: Process, server: StoreServer) -> None:
        self._wire = wire
        self._process = process
        self._server = server
        self._take_over_at = 0.0

    async def open(self) -> None:
        await self._wire.call(self._process, self._server, lambda: self._server.write("create_group"))

    async def close(self) -> None:
        """What this reader had not finished stays for the others."""

    async def next(self) -> list[Entry]:
        now = self._wire.loop.time()
        if now >= self._take_over_at:
            self._take_over_at = now + IDLE_MS_MIN / 1000
            taken = await self.take_over()
            if taken:
                self._take_over_at = now
                return taken
        return await self.read()

    async def read(self) -> list[Entry]:
        """What nobody has read yet: waits up to BLOCK_SECONDS for the first."""
        found = await self._read()
        if found is None:
            await self.open()  # the store was emptied under us
            return []
        if not found:
            # What a blocked read is woken by is read by whoever comes first.
            woken: asyncio.Future[None] = self._wire.loop.create_future()
            self._server.told.append(lambda: None if woken.done() else woken.set_result(None))
            timer = self._wire.loop.call_later(BLOCK_SECONDS, _wake, woken)
            await woken
            timer.cancel()
        return found

    async def _read(self) -> list[Entry] | None:
        name = self._process.name
        found: list[Entry] | None = await self._wire.call(
            self._process, self._server, lambda: self._server.write("read", name, READ_ENTRIES_MAX)
        )
        return found

    async def take_over(self) -> list[Entry]:
        name = self._process.name
        found: list[Entry] = await self._wire.call(
            self._process, self._server, lambda: self._server.write("claim", name, READ_ENTRIES_MAX)
        )
        return found

    async def done(self, entries: Sequence[Entry]) -> None:
        numbers = [int(entry.entry_id) for entry in entries]
        await self._wire.call(self._process, self._server, lambda: self._server.write("forget", numbers))


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class MemoryDeadLetters:
    """settlement.dead_letters.DeadLetters in the made-up store."""

    def __init__(self, wire: Wire, process: Process, server: StoreServer) -> None:
        self._wire = wire
        self._process = process
        self._server = server

    async def put(self, envelope: Envelope, reason: str) -> None:
        step = lambda: self._server.write("put_dead", envelope, reason)  # noqa: E731
        await self._wire.call(self._process, self._server, step)

    async def look(self, limit: int) -> list[DeadLetter]:
        step = lambda: list(self._server.memory.dead.values())[:limit]  # noqa: E731
        return await self._wire.call(self._process, self._server, step)

    async def count(self) -> int:
        return await self._wire.call(self._process, self._server, lambda: len(self._server.memory.dead))

    async def replay(self, limit: int) -> int:
        step = lambda: self._server.write("replay_dead", limit)  # noqa: E731
        found: int = await self._wire.call(self._process, self._server, step)
        return found
