"""The worker: from batches of events to committed rows, one transaction a batch, then acknowledged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import structlog

from reservation.outbox import Envelope
from reservation.outcomes import Fault
from reservation.steps import Event
from settlement.book import Book, BookRefused, BookUnavailable
from settlement.metrics import (
    DEAD_LETTERS,
    SETTLE_BATCH,
    SETTLE_FAILURES,
    SETTLED_EVENTS,
    SETTLEMENT_LAG,
)
from settlement.projection import Malformed
from settlement.retry import patiently
from settlement.source import Source

_log = structlog.get_logger(__name__)


class Worker:
    """Settles what its source brings, for ever."""

    def __init__(self, source: Source, book: Book) -> None:
        self._source = source
        self._book = book

    async def open(self) -> None:
        await patiently(self._source.open, Fault)

    async def close(self) -> None:
        await self._source.close()

    async def run(self) -> None:
        async for batch in self._source.batches():
            await self.settle(batch.envelopes)
            await batch.done()

    async def settle(self, envelopes: Sequence[Envelope]) -> None:
        """Every event is in the book or among the dead letters when this returns."""
        try:
            await patiently(
                lambda: self._book.settle(envelopes),
                BookUnavailable,
                on_failure=SETTLE_FAILURES.labels("book_unavailable").inc,
            )
        except (BookRefused, Malformed) as refused:
            if len(envelopes) > 1:  # one of them is bad: find it, and let the others through
                half = len(envelopes) // 2
                await self.settle(envelopes[:half])
                await self.settle(envelopes[half:])
                return
            await self._set_aside(envelopes[0], str(refused))
            return
        _count(envelopes)

    async def _set_aside(self, envelope: Envelope, reason: str) -> None:
        _log.error("dead_letter", id=envelope.get("id"), type=envelope.get("type"), reason=reason)
        await patiently(lambda: self._source.dead_letters.put(envelope, reason), Fault)
        DEAD_LETTERS.inc()


def _count(envelopes: Sequence[Envelope]) -> None:
    now_ms = time.time() * 1000
    SETTLE_BATCH.observe(len(envelopes))
    for event, count in Counter(str(envelope["type"]) for envelope in envelopes).items():
        SETTLED_EVENTS.labels(event).inc(count)
    for envelope in envelopes:
        if envelope["type"] == Event.RESERVED:
            SETTLEMENT_LAG.observe(max(0.0, (now_ms - envelope["record"]["created_at"]) / 1000))
