"""The sweeper: does what time asks for. It ends what was not paid, reminds, serves the waitlist, and
finishes what others began."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from reservation.campaign import BalanceWindow, Campaign
from reservation.catalog import REFRESH_SECONDS, Catalog
from reservation.desk import Desk
from reservation.ids import ReservationId
from reservation.kernel import Store
from reservation.order_desk import OrderDesk
from reservation.outcomes import Contended, Fault
from reservation.record import State
from reservation.sparing import Sparing
from reservation.tracing import NO_TRACER, SpanKind, Tracer, operation
from reservation.waitlist import Waitlist
from settlement.book_witness import LOOK_SECONDS, BookWitness
from settlement.metrics import LAPSED, SERVED
from settlement.patrol import Patrol
from settlement.retry import patiently

BATCH_MAX = 500
"""Of one shard at a time, so that a hundred thousand holds that end together do not stop the sale."""
ASIDE_SECONDS = 60.0
"""What nobody can read is tried again after so long. Until then, what is due behind it comes first."""
PAUSE_SECONDS = 0.05
UNFINISHED_PAUSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)
_sparing = Sparing()


class Sweeper:
    """Looks for what is due, for ever. Several may run: everything is done once."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        desk: Desk,
        waitlist: Waitlist,
        orders: OrderDesk,
        witness: BookWitness,
        patrol: Patrol,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._tracer = tracer
        self._store = store
        self._catalog = catalog
        self._desk = desk
        self._waitlist = waitlist
        self._orders = orders
        self._witness = witness
        self._patrol = patrol
        self._windows: dict[str, BalanceWindow] = {}
        """By campaign: the window that its reservations' appointments were last brought in line with."""
        self._aside: dict[ReservationId, float] = {}
        """What could not be read, until when."""

    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What is to run side by side: none waits for another."""
        return (
            self._catalog.follow(),
            again(self.sweep, PAUSE_SECONDS),
            again(self.serve, PAUSE_SECONDS),
            again(self.finish, UNFINISHED_PAUSE_SECONDS),
            again(self.reschedule, REFRESH_SECONDS),
            again(self._witness.look, LOOK_SECONDS),
            again(self._patrol.step, self._patrol.pause_seconds, self._patrol.share),
        )

    async def sweep(self) -> int:
        """Deal with one batch of passed deadlines; how many were dealt with. Raises StoreUnavailable."""
        now = time.monotonic()
        self._aside = {one: until for one, until in self._aside.items() if until > now}
        due = await self._desk.due(BATCH_MAX + len(self._aside))
        mine = [one for one in due if one not in self._aside]
        lapsed = sum(await asyncio.gather(*(self._alone("lapse", self._desk.lapse, one) for one in mine)))
        LAPSED.inc(lapsed)
        return lapsed

    async def serve(self) -> int:
        """Hold what has come back for those who stand in line; how many were served."""
        served = await self._waitlist.serve()
        SERVED.inc(served)
        return served

    async def finish(self) -> int:
        """Take back what main orders no longer entitle to, where that was left half done. Always 0: what
        cannot be finished now must not be tried again at once."""
        for order_id in await self._orders.unfinished():
            await self._orders.finish(order_id)
        return 0

    async def reschedule(self) -> int:
        """Bring appointments in line with balance windows that were moved; how many campaigns had been."""
        moved = 0
        for campaign in self._catalog.all():
            window = campaign.balance
            if window is not None and self._windows.get(campaign.id) != window:
                await self._reschedule(campaign)
                self._windows[campaign.id] = window
                moved += 1
        return moved

    async def _reschedule(self, campaign: Campaign) -> None:
        tally = (await self._store.standing(campaign.id, ["-"])).tally
        if not any(n for name, n in tally.items() if name.startswith(f"{State.DEPOSIT_PAID}/")):
            return
        cursor, keep = 0, self._desk.keep_appointments
        while True:
            cursor, found = await self._store.scan(campaign.id, cursor)
            waiting = [one.id for one in found if one.state is State.DEPOSIT_PAID]
            await asyncio.gather(*(self._alone("reschedule", keep, one) for one in waiting))
            if cursor == 0:
                return

    async def _alone(
        self, name: str, change: Callable[[ReservationId], Awaitable[bool]], reservation_id: ReservationId
    ) -> bool:
        with operation(self._tracer, name, SpanKind.INTERNAL, reservation_id):
            try:
                return await change(reservation_id)
            except Contended:
                return False  # it is still due: the next batch has it
            except Fault:
                raise
            except Exception:  # of another version's making, perhaps: the others are not to wait for it
                self._aside[reservation_id] = time.monotonic() + ASIDE_SECONDS
                if times := _sparing.times("not_lapsed"):
                    _log.exception("not_lapsed", id=str(reservation_id), times=times)
                return False


async def again(step: Callable[[], Awaitable[int]], pause_seconds: float, share: float = 0.1) -> None:
    """Take the step for ever, at once again while there is something to do. Looking for nothing takes this
    share of the time at most, however much there is to look through."""
    started = 0.0

    async def attempt() -> int:
        # What it was waited for before is no reason to rest: a store that was away is looked at at once.
        nonlocal started
        started = time.monotonic()
        return await step()

    while True:
        if await patiently(attempt, Fault) == 0:
            await asyncio.sleep(max(pause_seconds, (time.monotonic() - started) * (1 / share - 1)))
