"""The relay: from the outbox to the broker.

An entry leaves the outbox only after the broker has confirmed it. A relay that dies in between
leaves it there, and another sends it a second time, which the book does not mind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import structlog

from reservation.envelope import Envelope, events_in
from reservation.outbox import Entry
from reservation.outcomes import StoreUnavailable
from reservation.tracing import NO_TRACER, SpanKind, Tracer
from settlement.event_spans import tell_of_batch
from settlement.in_hand import InHand
from settlement.metrics import PUBLISH_SECONDS, RELAY_BATCH, RELAY_FAILURES, RELAYED_EVENTS, timed
from settlement.rabbit import EVENTS, BrokerUnavailable
from settlement.retry import patiently
from settlement.source import Reader

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """Where events go on to. Every method may raise BrokerUnavailable."""

    async def open(self) -> None: ...

    async def publish(self, queue: str, envelopes: Sequence[Envelope]) -> None:
        """The broker has them for certain when this returns."""
        ...

    async def close(self) -> None: ...


class Relay:
    """Moves events from the outbox to the broker, for ever."""

    def __init__(self, outbox: Reader, broker: Publisher, tracer: Tracer = NO_TRACER) -> None:
        self._tracer = tracer
        self._outbox = outbox
        self._broker = broker
        self.in_hand = InHand()

    async def open(self) -> None:
        await patiently(self._broker.open, BrokerUnavailable)
        await patiently(self._outbox.open, StoreUnavailable)

    async def run(self) -> None:
        while True:
            entries = await patiently(self._outbox.next, StoreUnavailable)
            if entries:
                await self.relay(entries)

    async def relay(self, entries: Sequence[Entry]) -> None:
        """Publish, wait for the confirms, and only then forget."""
        envelopes, started_ns = [entry.envelope for entry in entries], time.time_ns()
        events = sum(map(events_in, envelopes))
        RELAY_BATCH.observe(events)
        with self.in_hand.holding(envelopes):
            await patiently(
                lambda: timed(PUBLISH_SECONDS, self._broker.publish(EVENTS, envelopes)),
                BrokerUnavailable,
                on_failure=RELAY_FAILURES.inc,
            )
        if self._tracer.below:
            to = {"messaging.system": "rabbitmq", "messaging.destination.name": EVENTS}
            tell_of_batch(self._tracer, "publish", SpanKind.PRODUCER, envelopes, started_ns, to)
        await patiently(lambda: self._outbox.done(entries), StoreUnavailable)
        RELAYED_EVENTS.inc(events)

    async def close(self) -> None:
        await self._outbox.close()
        await self._broker.close()
