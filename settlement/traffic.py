"""Traffic on its way from the store to the book: copied every few seconds, by whoever sweeps."""

from __future__ import annotations

import time

import structlog

from reservation.outcomes import Fault
from reservation.traffic import HOURS_KEPT, Minute, TrafficLog, hour_of
from settlement.book import Book

COPY_SECONDS = 2.0
"""From one copy to the next."""
WHOLE_SECONDS = 300.0
"""From one copy of all that the store keeps to the next: who could not write for hours may write at last."""
_log = structlog.get_logger(__name__)


class TrafficCopy:
    """Copies what has been noted since it last looked. Several may: the book keeps the highest."""

    def __init__(self, log: TrafficLog, book: Book) -> None:
        self._log = log
        self._book = book
        self._copied: dict[str, int] = {}
        """By campaign: how often something had been written down when it was last copied."""
        self._hour = 0
        """Of the last copy."""
        self._whole_at = 0.0
        """When all that the store keeps is read next, by this machine's stopwatch."""
        self._partly: set[str] = set()
        """Campaigns of which only the last hours were read since all was."""
        self._counts: dict[str, dict[Minute, int]] = {}
        """By campaign: the counts that were read last."""

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
        hour, whole = hour_of(await self._log.now_ms()), time.monotonic() >= self._whole_at
        if whole:
            self._whole_at = time.monotonic() + WHOLE_SECONDS
        for campaign, times in (await self._log.written()).items():
            wholly = campaign not in self._copied or (whole and campaign in self._partly)
            if wholly or self._copied[campaign] != times:
                await self._copy(campaign, hour, whole=wholly)
                self._copied[campaign] = times
                (self._partly.discard if wholly else self._partly.add)(campaign)
        self._hour = hour

    async def _copy(self, campaign: str, hour: int, *, whole: bool) -> None:
        # What was counted a moment before the hour was over may have been written when it was.
        first = hour - HOURS_KEPT if whole else max(hour - HOURS_KEPT, self._hour - 1)
        noted = await self._log.read(campaign, first, hour)
        before = self._counts.get(campaign, {})
        new = {minute: times for minute, times in noted.counts.items() if before.get(minute) != times}
        await self._book.note_traffic(campaign, new, noted.visitors, noted.participants)
        self._counts[campaign] = dict(noted.counts)
