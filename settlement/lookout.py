"""The lookout: what waits in the book and among the dead letters is a gauge; and campaigns that others took
into the book are counted from nothing here, too."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import structlog

from reservation.outcomes import Fault
from settlement import settled
from settlement.book import CampaignOn, Waiting
from settlement.metrics import (
    DEAD_LETTERS,
    NOTIFICATION_OLDEST,
    NOTIFICATIONS_PENDING,
    REFUNDS_PENDING,
    show_what_waits,
)

T = TypeVar("T")
_log = structlog.get_logger(__name__)
LOOK_SECONDS = 2.0
"""From one look to the next; a little more or less."""


class Countable(Protocol):
    async def count(self) -> int:
        """How many there are. Raises a Fault while that is not known."""
        ...


class Lookout:
    """Looks, for ever. What cannot be told, since book, broker or store is away, is told as not a number."""

    def __init__(
        self,
        waiting: Callable[[], Awaitable[Waiting]],
        campaigns_on: Callable[[datetime, int], Awaitable[list[CampaignOn]]],
        dead_letters: Countable,
    ) -> None:
        self._waiting = waiting
        self._campaigns_on = campaigns_on
        self._dead_letters = dead_letters
        self._known_to = datetime.fromtimestamp(0, UTC)
        """The last change of a campaign that is known here."""
        show_what_waits()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311

    async def look(self) -> None:
        """Once."""
        waiting, campaigns, dead = await asyncio.gather(
            _told(self._waiting()),
            _told(self._campaigns_on(self._known_to, settled.CAMPAIGNS_MAX)),
            _told(self._dead_letters.count()),
        )
        for campaign in campaigns or ():
            settled.begin(campaign.id, campaign.kind)
            self._known_to = max(self._known_to, campaign.changed_at)
        refunds, notifications, oldest = waiting if waiting is not None else (math.nan,) * 3
        REFUNDS_PENDING.set(refunds)
        NOTIFICATIONS_PENDING.set(notifications)
        NOTIFICATION_OLDEST.set(oldest)
        DEAD_LETTERS.set(dead if dead is not None else math.nan)


async def _told(asked: Awaitable[T]) -> T | None:
    """The answer, if there is one."""
    try:
        return await asked
    except Fault:
        return None
    except Exception:  # whatever is wrong with looking, settlement goes on
        _log.exception("not_looked_up")
        return None
