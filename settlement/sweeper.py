"""The sweeper: ends reservations whose deadline has passed, in bounded batches."""

from __future__ import annotations

import asyncio

from reservation.desk import Desk
from reservation.ids import ReservationId
from reservation.outcomes import Contended, StoreUnavailable
from settlement.metrics import LAPSED
from settlement.retry import patiently

BATCH_MAX = 500
"""Of one shard at a time, so that a hundred thousand holds that end together do not stop the sale."""
PAUSE_SECONDS = 0.05


class Sweeper:
    """Looks for passed deadlines, for ever. Several may run: a reservation ends once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self) -> None:
        while True:
            found = await patiently(self.sweep, StoreUnavailable)
            if found == 0:
                await asyncio.sleep(PAUSE_SECONDS)

    async def sweep(self) -> int:
        """End one batch of what is due; how many were due. Raises StoreUnavailable."""
        due = await self._desk.due(BATCH_MAX)
        for lapsed in await asyncio.gather(*(self._lapse(one) for one in due)):
            LAPSED.inc(lapsed)
        return len(due)

    async def _lapse(self, reservation_id: ReservationId) -> bool:
        try:
            return await self._desk.lapse(reservation_id)
        except Contended:
            return False  # it is still due: the next batch has it
