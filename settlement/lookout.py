"""The lookout: what waits in the book and among the dead letters is a gauge."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from reservation.outcomes import Fault
from settlement.book import Waiting
from settlement.metrics import (
    DEAD_LETTERS_NOW,
    NOTIFICATION_OLDEST,
    NOTIFICATIONS_PENDING,
    REFUNDS_PENDING,
    show_what_waits,
)

LOOK_SECONDS = 2.0
"""From one look to the next; a little more or less."""


class Countable(Protocol):
    async def count(self) -> int:
        """How many there are. Raises a Fault while that is not known."""
        ...


class Lookout:
    """Looks, for ever. What cannot be told, since book, broker or store is away, is told as not a number."""

    def __init__(self, waiting: Callable[[], Awaitable[Waiting]], dead_letters: Countable) -> None:
        self._waiting = waiting
        self._dead_letters = dead_letters
        show_what_waits()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311

    async def look(self) -> None:
        """Once."""
        await asyncio.gather(self._look_into_the_book(), self._count_dead_letters())

    async def _look_into_the_book(self) -> None:
        try:
            found = await self._waiting()
        except Fault:
            found = Waiting(*[math.nan] * 3)  # type: ignore[arg-type]
        REFUNDS_PENDING.set(found.refunds)
        NOTIFICATIONS_PENDING.set(found.notifications)
        NOTIFICATION_OLDEST.set(found.notification_oldest_seconds)

    async def _count_dead_letters(self) -> None:
        try:
            DEAD_LETTERS_NOW.set(await self._dead_letters.count())
        except Fault:
            DEAD_LETTERS_NOW.set(math.nan)
