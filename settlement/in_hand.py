"""What a relay or worker has taken and not passed on yet.

It is still to come, and nothing else shows it when its source is lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reservation.envelope import Envelope, events_in
from settlement.metrics import IN_HAND


class InHand:
    """One reader's."""

    events = 0

    @contextmanager
    def holding(self, envelopes: Sequence[Envelope]) -> Iterator[None]:
        self._hold(sum(map(events_in, envelopes)))
        try:
            yield
        finally:
            self._hold(0)

    def _hold(self, events: int) -> None:
        self.events = events
        IN_HAND.set(events)
