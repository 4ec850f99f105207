"""Where the worker's events come from: the broker, or the outbox itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from reservation.envelope import Envelope, events_in
from reservation.outbox import Entry
from reservation.outcomes import StoreUnavailable
from settlement.dead_letters import DeadLetters
from settlement.retry import patiently

BATCH_EVENTS_MAX = 5_000
"""In one transaction; what begins below it is taken whole. More would not be cheaper."""


class Reader(Protocol):
    """One reader of the outbox. Every method may raise StoreUnavailable."""

    async def open(self) -> None: ...

    async def next(self) -> list[Entry]:
        """Entries that nobody has in hand. Those that are never done come again, to some reader."""
        ...

    async def done(self, entries: Sequence[Entry]) -> None:
        """The entries are safe elsewhere: forget them. Twice is harmless."""
        ...

    async def close(self) -> None: ...


class Batch(Protocol):
    """Events that were handed to this worker and are not settled yet."""

    @property
    def envelopes(self) -> Sequence[Envelope]: ...

    async def done(self) -> None:
        """They are in the book, or among the dead letters."""
        ...


class Source(Protocol):
    """Events, at least once each. A batch that is never done comes again, to some worker."""

    @property
    def dead_letters(self) -> DeadLetters: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def batches(self) -> AsyncIterator[Batch]:
        """Batches as they come, for ever. Cancelling between two of them loses nothing."""
        ...


class OutboxBatch:
    """Entries of the outbox, unfinished."""

    def __init__(self, outbox: Reader, entries: Sequence[Entry]) -> None:
        self._outbox = outbox
        self._entries = entries
        self.envelopes: Sequence[Envelope] = [entry.envelope for entry in entries]

    async def done(self) -> None:
        await patiently(lambda: self._outbox.done(self._entries), StoreUnavailable)


class OutboxSource:
    """Reads the outbox without a broker in between."""

    def __init__(self, outbox: Reader, dead_letters: DeadLetters) -> None:
        self._outbox = outbox
        self.dead_letters = dead_letters

    async def open(self) -> None:
        await self._outbox.open()

    async def close(self) -> None:
        await self._outbox.close()

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            entries = await patiently(self._outbox.next, StoreUnavailable)
            for batch in _batches(entries):
                yield OutboxBatch(self._outbox, batch)


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    events = 0
    for entry in entries:
        batch.append(entry)
        events += events_in(entry.envelope)
        if events >= BATCH_EVENTS_MAX:
            yield batch
            batch, events = [], 0
    if batch:
        yield batch
