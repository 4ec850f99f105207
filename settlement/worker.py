"""The worker: from batches of events to committed rows, one transaction a batch, then acknowledged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import structlog

from reservation.envelope import Envelope, events_in, halves, singly
from reservation.ids import ReservationId
from reservation.outcomes import Fault
from reservation.steps import Event
from reservation.tracing import NO_TRACER, SpanKind, Tracer, operation
from settlement.book import BookRefused, BookUnavailable
from settlement.event_spans import tell_of_batch
from settlement.in_hand import InHand
from settlement.metrics import (
    SET_ASIDE,
    SETTLE_BATCH,
    SETTLE_FAILURES,
    SETTLE_SECONDS,
    SETTLEMENT_LAG,
    observe,
    timed,
)
from settlement.projection import Malformed
from settlement.retry import patiently
from settlement.settled import count
from settlement.source import Source

_log = structlog.get_logger(__name__)


class Settled(Protocol):
    """The book, as events are written into it."""

    async def settle(self, envelopes: Sequence[Envelope]) -> None:
        """All of them or none. Twice is harmless. Raises BookUnavailable, BookRefused, Malformed."""
        ...


class Worker:
    """Settles what its source brings, for ever."""

    def __init__(self, source: Source, book: Settled, tracer: Tracer = NO_TRACER) -> None:
        self._source = source
        self._book = book
        self._tracer = tracer
        self.in_hand = InHand()

    async def open(self) -> None:
        await patiently(self._source.open, Fault)

    async def close(self) -> None:
        await self._source.close()

    async def run(self) -> None:
        async for batch in self._source.batches():
            with self.in_hand.holding(batch.envelopes):
                await self.settle(batch.envelopes)
            await batch.done()

    async def settle(self, envelopes: Sequence[Envelope]) -> None:
        """Every event is in the book or among the dead letters when this returns."""
        started_ns = time.time_ns()
        try:
            await patiently(
                lambda: timed(SETTLE_SECONDS, self._book.settle(envelopes)),
                BookUnavailable,
                on_failure=SETTLE_FAILURES.labels("book_unavailable").inc,
            )
        except (BookRefused, Malformed) as refused:
            parts = halves(envelopes)
            if parts is None:
                await self._set_aside(envelopes[0], refused)
            else:  # one of them is bad: find it, and let the others through
                for part in parts:
                    await self.settle(part)
            return
        _count(envelopes)
        if self._tracer.below:
            system = {"db.system.name": "postgresql"}
            tell_of_batch(self._tracer, "settle", SpanKind.CONSUMER, envelopes, started_ns, system)

    async def _set_aside(self, envelope: Envelope, refused: Exception) -> None:
        for letter in singly(envelope):
            name = str(letter.get("id"))
            with operation(self._tracer, "set aside", SpanKind.CONSUMER, ReservationId.parse(name)) as step:
                step.outcome = "dead_letter"
                # The whole reason, which may quote the event, is with the letter.
                reason = type(refused.__cause__ or refused).__name__
                _log.error("dead_letter", id=name, type=letter.get("type"), reason=reason)
                await patiently(partial(self._source.dead_letters.put, letter, str(refused)), Fault)
            SET_ASIDE.inc()


def _count(envelopes: Sequence[Envelope]) -> None:
    now_ms = time.time() * 1000
    for envelope in envelopes:
        if envelope["type"] == Event.RESERVED:
            made_ms = envelope["at"] if "who" in envelope else envelope["record"]["created_at"]
            observe(SETTLEMENT_LAG, max(0.0, (now_ms - made_ms) / 1000), events_in(envelope))
    SETTLE_BATCH.observe(sum(map(events_in, envelopes)))
    count(envelopes)
