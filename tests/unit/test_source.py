"""The worker's source of events."""

from __future__ import annotations

from typing import Any, cast

from reservation.outbox import Entry, Outbox
from reservation.outcomes import StoreUnavailable
from settlement.source import OutboxSource


class AwayTwice:
    """An outbox whose store is away twice, before each thing it is asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.finished: list[Entry] = []

    def _away(self) -> None:
        self.asked += 1
        if self.asked % 3:
            raise StoreUnavailable("away")

    async def next(self) -> list[Entry]:
        self._away()
        return [Entry("stream", b"1-0", {"type": "reserved", "id": "x"})]

    async def done(self, entries: list[Entry]) -> None:
        self._away()
        self.finished += entries


async def test_a_store_that_is_away_is_waited_for() -> None:
    outbox, nothing = AwayTwice(), cast(Any, None)
    source = OutboxSource(cast(Outbox, outbox), nothing)
    async for batch in source.batches():
        assert [envelope["id"] for envelope in batch.envelopes] == ["x"]
        await batch.done()
        break
    assert [entry.entry_id for entry in outbox.finished] == [b"1-0"]
    assert outbox.asked == 6
