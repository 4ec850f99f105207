"""Shoppers who come one after the other and never give up: with the same key, until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from reservation.ids import digest_of
from reservation.kernel import Store, Terms
from reservation.outcomes import ConfigureOutcome, Outcome, StoreUnavailable
from reservation.tasks import end
from tests.contract.test_kernel import ENDS, first, stock

AGAIN_SECONDS = 0.02
ASKING = 2
"""Shoppers at a time: light load."""
PROVING = "a new run is being proved"
"""What a fence says that goes away by itself."""


async def on_sale(store: Store, campaign: str, units: int) -> Terms:
    """The terms of a sale that is open, and has so many units."""
    caps = {"stock/phone": units}
    configured = await store.configure(campaign, 0, "running", b"{}", caps, ENDS)
    assert configured.outcome is ConfigureOutcome.CONFIGURED
    return first(campaign=campaign, claims=(stock(1),), revision=configured.revision)[0]


class Shoppers:
    """Who asked in one sale, and what they were told."""

    def __init__(self, store: Store, terms: Terms) -> None:
        self._store, self._terms = store, terms
        self._asked = 0
        self.told: dict[str, Outcome] = {}
        self.not_made = 0
        """How often it was said that nothing had been done."""
        self.unknown = 0
        """How often it was said that nobody knows."""
        self.fenced = 0
        """How often the store was found to have lost something."""

    async def shop(self, user: str) -> None:
        """Until there is an answer."""
        digest = digest_of(self._terms.campaign, user, user)
        while user not in self.told:
            try:
                moved = await self._store.reserve(self._terms, digest, user)
            except StoreUnavailable as fault:
                self.unknown += fault.sent
                self.not_made += not fault.sent
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                if moved.outcome is Outcome.STORE_UNAVAILABLE:
                    await self._look_at_the_fence()
                else:
                    self.told[user] = moved.outcome

    async def _look_at_the_fence(self) -> None:
        """A new run is proved for a moment. One that has lost something waits for an operator: us."""
        self.not_made += 1
        reason = await self._store.fenced()
        if "acknowledged" in reason:
            self.fenced += 1
            await self._store.lift()
        else:
            assert reason in ("", PROVING), f"nobody lifts this, and we would ask for ever: {reason}"
        await asyncio.sleep(AGAIN_SECONDS)

    async def come(self) -> None:
        """For ever, one after the other."""
        while True:
            self._asked += 1
            await self.shop(f"user-{self._asked}")

    async def more(self, number: int = 20) -> None:
        """Return when so many more have been answered."""
        until = len(self.told) + number
        async with asyncio.timeout(30):
            while len(self.told) < until:
                await asyncio.sleep(AGAIN_SECONDS)

    async def told_at_once(self) -> None:
        """Return when somebody has been told that nothing was done, rather than be kept waiting."""
        async with asyncio.timeout(30):
            while not self.not_made:
                await asyncio.sleep(AGAIN_SECONDS)

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.come()) for _ in range(ASKING)]
        try:
            yield
        finally:
            await end(*tasks)

    async def check(self, *, lost: int = 0) -> Any:
        """Who has a reservation: everybody that was told so, each one, and each unit is counted once."""
        assert set(self.told.values()) <= {Outcome.MOVED, Outcome.REPLAYED}
        found = await self._store.snapshot(self._terms.campaign)
        assert found is not None
        have = {one.user for one in found.reservations}
        assert len(self.told.keys() - have) <= lost
        assert self.fenced or self.told.keys() <= have, "what is lost is noticed"
        assert len(have) == len(found.reservations) == found.used["stock/phone"]
        assert found.used["stock/phone"] <= found.caps["stock/phone"]
        return have
