"""The patrol: store and book are compared all the time, and how they differ is a gauge.

What is on its way to the book is waited for, as in any reconciliation, so the gauge is 0 when all is well. A
round is made of small steps, none of which holds up a sale, and followed by a rest of many times its length.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from reservation.campaign import Campaign
from reservation.outcomes import Fault
from settlement.metrics import DIFFERENCES, PATROL_SECONDS
from settlement.reconcile import Difference, Drift, Reconciler

SETTLE_SECONDS_MAX = 60.0
"""What comes into the book later than that is told: it is late, if it is not lost."""
DIFFERENCES_MAX = 1_000
"""In a round. Where so many are found, there are more."""
_TOLD_MAX = 10
_log = structlog.get_logger(__name__)


class Patrol:
    """Looks at one campaign after the other, and at all main orders. Changes nothing."""

    pause_seconds = 10.0
    """From one round to the next, at least."""
    share = 0.05
    """Of the time, for looking."""

    def __init__(self, reconciler: Reconciler, campaigns: Callable[[], Sequence[Campaign]]) -> None:
        self._reconciler = reconciler
        self._campaigns = campaigns
        self._told: set[Difference] = set()
        _know_nothing()  # before it has looked

    async def round(self) -> list[Difference]:
        """What differs. Raises StoreUnavailable, BookUnavailable."""
        started = time.monotonic()
        chosen = [campaign.id for campaign in self._campaigns()]
        found = (await self._reconciler.reconcile(chosen, repair=False)).differences
        counts = Counter(one.drift for one in found)
        for drift in Drift:
            DIFFERENCES.labels(drift).set(counts[drift])
        PATROL_SECONDS.set(time.monotonic() - started)
        self._tell(found)
        return found

    async def step(self) -> int:
        """A round. Always 0: there is no hurry to look again."""
        try:
            await self.round()
        except Fault:
            raise
        except Exception:  # what nobody can read, perhaps: what is due must not wait for it
            _know_nothing()
            _log.exception("patrol_failed")
        return 0

    def _tell(self, found: Sequence[Difference]) -> None:
        """Log what is new, some of it."""
        for one in [one for one in found if one not in self._told][:_TOLD_MAX]:
            _log.error("store_and_book_differ", drift=one.drift, id=one.id, detail=one.detail)
        self._told = set(found)


def _know_nothing() -> None:
    for drift in Drift:
        DIFFERENCES.labels(drift).set(math.nan)
