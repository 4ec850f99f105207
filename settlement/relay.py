"""The relay: from the outbox to the broker.

An entry leaves the outbox only after the broker has confirmed it. A relay that dies in between
leaves it there, and another sends it a second time, which the book does not mind.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from reservation.envelope import events_in
from reservation.outbox import Entry, Outbox
from reservation.outcomes import StoreUnavailable
from settlement.metrics import RELAY_FAILURES, RELAYED_EVENTS
from settlement.rabbit import EVENTS, Broker, BrokerUnavailable
from settlement.retry import patiently

_log = structlog.get_logger(__name__)


class Relay:
    """Moves events from the outbox to the broker, for ever."""

    def __init__(self, outbox: Outbox, broker: Broker) -> None:
        self._outbox = outbox
        self._broker = broker

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
        envelopes = [entry.envelope for entry in entries]
        await patiently(
            lambda: self._broker.publish(EVENTS, envelopes), BrokerUnavailable, on_failure=RELAY_FAILURES.inc
        )
        await patiently(lambda: self._outbox.done(entries), StoreUnavailable)
        RELAYED_EVENTS.inc(sum(map(events_in, envelopes)))

    async def close(self) -> None:
        await self._outbox.close()
        await self._broker.close()
