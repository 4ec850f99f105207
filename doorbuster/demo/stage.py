"""Where a campaign of the demo is played: its document, its log, who takes part, and how it ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp

from doorbuster.demo.checks import (
    Violation,
    check_answers,
    check_ends,
    check_money,
    check_prices,
    check_units,
    owed,
)
from doorbuster.demo.log import Log, View
from doorbuster.demo.merchant import Merchant
from doorbuster.demo.outside import Outside
from doorbuster.demo.report import Played, progress_line
from doorbuster.demo.service import Service
from doorbuster.demo.shopper import Shopper
from doorbuster.tokens import make_token
from reservation.tasks import end

PROGRESS_SECONDS = 3.0
END_SECONDS_MAX = 30.0
_TOKEN_SECONDS = 3600


@dataclass
class Ended:
    """A campaign that is over: what became of it, and what was found broken."""

    ends: dict[str, View]
    """By id: each reservation as its user sees it in the end."""
    offers: list[View]
    """The units of each offer, by the service's audit."""
    violations: list[Violation]


class Stage:
    """One campaign of the demo."""

    def __init__(
        self,
        service: Service,
        outside: Outside,
        session: aiohttp.ClientSession,
        watcher: aiohttp.ClientSession,
        document: View,
        seed: int,
    ) -> None:
        self.document = document
        self.opens_at = datetime.fromisoformat(document["opens_at"]).timestamp()
        self.log = Log(document["id"], datetime.fromisoformat(document["closes_at"]).timestamp())
        self.merchant = Merchant(watcher, self.log, service.service_key)
        self.outside = outside
        self.dice = random.Random(f"{seed} {document['id']}")  # noqa: S311 - moods, not secrets
        self._service = service
        self._session = session
        self._shoppers: dict[str, Shopper] = {}

    def shopper(self, name: str) -> Shopper:
        """A new user."""
        token = make_token(
            self._service.jwt_secret, name, tier=None, ttl_s=_TOKEN_SECONDS, now_s=int(time.time())
        )
        dice = random.Random(self.dice.random())  # noqa: S311
        self._shoppers[name] = Shopper(self._session, self.log, name, token, dice)
        return self._shoppers[name]

    async def opening(self, after_s: float = 0.0) -> None:
        """Wait until the campaign has been open for so long."""
        await until(self.opens_at + after_s)

    @property
    def reservers(self) -> list[Shopper]:
        """Who has had a reservation, or stood in line."""
        users = {one.user for one in self.log.followed.values()} | {place.user for place in self.log.line}
        return [self._shoppers[user] for user in sorted(users)]

    async def reservations(self) -> dict[str, View]:
        """What they see now: all their reservations, by id."""
        found = await asyncio.gather(*(shopper.mine() for shopper in self.reservers))
        return {name: view for one in found for name, view in one.items()}

    @asynccontextmanager
    async def progress(self) -> AsyncIterator[None]:
        """Print how it goes, every now and then."""

        async def report() -> None:
            while True:
                print(progress_line(self.log, await self.merchant.campaign()), flush=True)
                await asyncio.sleep(PROGRESS_SECONDS)

        reporting = asyncio.create_task(report())
        try:
            yield
        finally:
            await end(reporting)

    def played(self, lines: list[str], violations: list[Violation]) -> Played:
        """What there is to say of it, now that it is over."""
        return Played(self.log.campaign, lines, violations, len(self.log.reserve_ms))

    async def end(self, lost_orders: Collection[str] = ()) -> Ended:
        """Wait for the end, and hold the service to what shoppers were told."""
        drained = await come_true(self._is_settled) and await come_true(self._is_even)
        ends = await self._ends()
        audit = await self.merchant.audit()
        print(progress_line(self.log, await self.merchant.campaign()), flush=True)
        violations = [Violation(one["invariant"], one["detail"]) for one in audit["violations"]]
        violations += check_answers(self.log)
        violations += check_ends(self.log, ends, lost_orders)
        violations += check_units(ends, audit["offers"])
        violations += check_money(self.log, ends, self.outside.refunded, self.outside.contradictions)
        violations += check_prices(self.log, self.document)
        if not drained:
            violations.append(Violation("I8", f"{self.log.campaign} did not drain in {END_SECONDS_MAX:g} s"))
        return Ended(ends, audit["offers"], violations)

    async def _ends(self) -> dict[str, View]:
        """What everybody's reservations came to. What they learn here explains nothing."""
        found = await asyncio.gather(*(shopper.mine(noted=False) for shopper in self.reservers))
        return {name: view for one in found for name, view in one.items()}

    async def _is_settled(self) -> bool:
        """Nothing is held any more, and all events are in the book."""
        metrics = await self.merchant.metrics()
        live = [
            units
            for name, units in metrics.items()
            if name.startswith("doorbuster_units{")
            and f'campaign="{self.log.campaign}"' in name
            and ('state="held"' in name or 'state="deposit_paid"' in name)
        ]
        return not any(live) and metrics.get("doorbuster_outbox_events") == 0

    async def _is_even(self) -> bool:
        """All that was to be given back has been."""
        return all(
            sum(self.log.followed[name].charged.values()) - self.outside.refunded(name) == owed(view)
            for name, view in (await self._ends()).items()
            if name in self.log.followed
        )


async def come_true(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Wait for it; whether it did in time."""
    give_up_at = time.monotonic() + END_SECONDS_MAX
    while not await condition():
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(0.3)
    return True


async def until(at: float) -> None:
    """Wait until then, in seconds since the epoch."""
    await asyncio.sleep(max(0.0, at - time.time()))


def instant(after_s: float) -> str:
    """The instant so long from now, as a campaign's document has it."""
    return (datetime.now(UTC) + timedelta(seconds=after_s)).isoformat()
