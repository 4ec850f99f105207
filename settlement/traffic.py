"""Traffic on its way from the store to the book: copied every few seconds, by whoever sweeps."""

from __future__ import annotations

import time

import structlog

from reservation.outcomes import Fault
from reservation.traffic import HOURS_KEPT, Minute, TrafficLog, minute_of
from settlement.book import Book

COPY_SECONDS = 2.0
"""From one copy to the next."""
WHOLE_SECONDS = 300.0
"""From one copy of all that the store keeps to the next: who could not write for hours may write at last."""
_SLACK_MINUTES = 2
"""By so much the clocks of those who note and of who copies may differ."""
_log = structlog.get_logger(__name__)


class TrafficCopy:
    """Copies what has been noted since it last looked. Several may: the book keeps the highest."""

    def __init__(self, log: TrafficLog, book: Book) -> None:
        self._log = log
        self._book = book
        self._minute = 0
        """Of the last copy."""
        self._whole_at = 0.0
        """When all that the store keeps is read next, by this machine's stopwatch."""
        self._partly: set[str] = set()
        """Campaigns of which only the last hours were read since all was."""
        self._counts: dict[str, dict[Minute, int]] = {}
        """By campaign of which something was noted of late: the counts that were read last."""

    async def step(self) -> int:
        """Copy what is new. Always 0: there is no hurry. Raises StoreUnavailable, BookUnavailable."""
        try:
            await self._copy_all()
        except Fault:
            raise
        except Exception:  # a defect of ours, and no reason not to sweep
            _log.exception("traffic_not_copied")
        return 0

    async def _copy_all(self) -> None:
        minute = minute_of(await self._log.now_ms())
        oldest = minute - HOURS_KEPT * 60
        written = set(await self._log.written(max(self._minute - _SLACK_MINUTES, oldest)))
        whole = time.monotonic() >= self._whole_at
        for campaign in sorted(written | self._partly if whole else written):
            await self._copy(campaign, minute, whole=whole or campaign not in self._counts)
        if whole:
            await self._log.forget(oldest)
            self._partly.clear()
            self._whole_at = time.monotonic() + WHOLE_SECONDS
        self._partly |= written
        self._counts = {name: counts for name, counts in self._counts.items() if name in self._partly}
        self._minute = minute

    async def _copy(self, campaign: str, minute: int, *, whole: bool) -> None:
        hour = minute // 60
        # What was counted a moment before the hour was over may have been written when it was.
        first = hour - HOURS_KEPT if whole else max(hour - HOURS_KEPT, self._minute // 60 - 1)
        noted = await self._log.read(campaign, first, hour)
        before = self._counts.get(campaign, {})
        new = {one: times for one, times in noted.counts.items() if before.get(one) != times}
        await self._book.note_traffic(campaign, new, noted.visitors, noted.participants)
        self._counts[campaign] = dict(noted.counts)
