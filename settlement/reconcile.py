"""Reconciliation: every difference between the store and the book, by reservation, and its repair.

The book has all that was ever settled, the store all that was ever acknowledged and not lost. What one has
lost the other still has, so of each difference one side is further, and repair brings the other one there:

- into the store by restore.lua, claim by claim, as anybody else takes them: a running sale goes on, and
  nothing is sold twice;
- into the book by an event like any other.

What is further never goes back, no counter is set, and what is still on its way is waited for first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import orjson

from reservation.campaign import Campaign, Status, stock_counter
from reservation.catalog import parse_campaign
from reservation.ids import ReservationId
from reservation.kernel import Store, StoredCampaign
from reservation.main_order import KEPT_MS, MainOrder
from reservation.miscounts import miscounts
from reservation.outcomes import AdjustOutcome, ConfigureOutcome, RestateOutcome, RestoreOutcome
from reservation.record import Record, Reservation, State
from reservation.steps import Event
from settlement.book import Booked, BookedCampaign, pages

SETTLE_SECONDS_MAX = 15.0
"""How long what is on its way to the book is waited for, from when last some of it came there."""
_LOOK_SECONDS = 0.1
_FORGETTING_MS = 24 * 3_600_000
"""So long before the store forgets a main order, it is not missed there any more: to look takes a while."""


class Drift(StrEnum):
    """How the two differ."""

    CAMPAIGN_LOST = "campaign_lost"  # the store has lost a campaign that the book has
    CAMPAIGN_BEHIND = "campaign_behind"  # the store has an older revision than the book
    CAMPAIGN_UNTOLD = "campaign_untold"  # the book has never heard of it, or of its last revision
    MAIN_ORDER_LOST = "main_order_lost"
    MAIN_ORDER_BEHIND = "main_order_behind"
    MAIN_ORDER_UNTOLD = "main_order_untold"  # the book lacks it, or what was last said of it
    COUNTER_DIFFERS = "counter_differs"  # within the store: it is not what the reservations claim of it
    RESERVATION_LOST = "reservation_lost"
    RESERVATION_BEHIND = "reservation_behind"
    RESERVATION_FORKED = "reservation_forked"  # each has another step under the same version
    RESERVATION_UNTOLD = "reservation_untold"  # the book lacks it, or a step of it, and nothing is on its way


@dataclass(frozen=True, slots=True)
class Difference:
    """One, and what became of it."""

    drift: Drift
    id: str
    detail: str
    mended: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """A reservation, or a step of it, that somebody was told of, and that neither store nor book has."""

    id: str
    version: int
    left: int
    """The version in which one of them has it; 0 is none."""


@dataclass(slots=True)
class Reconciliation:
    """What was found, and what was done about it."""

    differences: list[Difference] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    """What a store that lost its last writes has taken with it, as far as gateways remember it. Nobody can
    mend that, so it is said until the fence is lifted: with what is left, all is well."""
    paused: list[str] = field(default_factory=list)
    """Campaigns that repair has left paused: audit them, then resume."""
    fenced: str = ""
    """Why the store takes nothing, if so."""
    lifted: bool = False
    """Whether that is over: what the book has is in the store again."""

    @property
    def ok(self) -> bool:
        """Whether nothing is left that differs, nor a fence."""
        return not self.fenced and all(one.mended for one in self.differences)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True, slots=True)
class _Run:
    """One reconciliation, under way."""

    repair: bool
    found: Reconciliation
    told: set[ReservationId] = field(default_factory=set)
    """What the book is just being told by what it has mended."""
    campaigns: dict[str, StoredCampaign] = field(default_factory=dict)
    """Those of whose last change the book has not heard: not yet, perhaps."""


class Records(Protocol):
    """The book, as the store is held against it. Every method may raise BookUnavailable."""

    async def campaign(self, campaign: str) -> BookedCampaign | None: ...

    def reservations(self, campaign: str) -> AsyncIterator[list[Booked]]:
        """The campaign's reservations, oldest first, some at a time."""
        ...

    async def versions(self, ids: Sequence[ReservationId]) -> dict[ReservationId, int]:
        """In which versions the book has these, of those that it has with all that led there."""
        ...

    def main_orders(self, since_ms: int) -> AsyncIterator[list[MainOrder]]:
        """Main orders of which something was reported since then, some at a time, each with the campaigns
        that it was used in."""
        ...

    async def main_orders_named(self, ids: Sequence[str]) -> dict[str, MainOrder]:
        """Of these those that the book has, without where they were used."""
        ...


class Reconciler:
    """Compares the store with the book. Its methods raise StoreUnavailable, BookUnavailable."""

    def __init__(
        self,
        store: Store,
        book: Records,
        *,
        settle_seconds_max: float = SETTLE_SECONDS_MAX,
        differences_max: int | None = None,
        counts: bool = True,
    ) -> None:
        """Once `differences_max` of a campaign, or of main orders, have been found, it looks no further
        there. Counting reads all of a campaign, as an audit does; without `counts`, that is left out."""
        self._store = store
        self._book = book
        self._settle_seconds_max = settle_seconds_max
        self._differences_max = differences_max
        self._counts = counts

    async def reconcile(
        self, campaigns: Sequence[str], *, repair: bool, lift: bool = False
    ) -> Reconciliation:
        """These campaigns, and all main orders. With `repair`, what differs is mended where it can be.

        With `lift` too, a fence is lifted afterwards: these must be all campaigns that there are. What cannot
        be mended never will be, and is told; so it holds up nothing.
        """
        found = Reconciliation(fenced=await self._store.fenced())
        run = _Run(repair, found)
        behind: dict[ReservationId, Reservation] = {}
        for campaign in campaigns:
            if await self._campaign(run, campaign):
                # What a record that is gone still holds of shared counters is free first: it takes it again.
                await self._counters(run, campaign)
                await self._lost(run, campaign)
                if repair:  # and now the users' own, if all that they had was gone
                    await self._counters(run, campaign)
                behind |= await self._behind(run, campaign)
        # After them: one that was cancelled must find the trade-ins that it takes back. Told to a campaign
        # before they are there again, it would leave them no cap to come back under.
        await self._main_orders(run)
        await self._untold(run, behind)
        found.gone = await self._gone()
        if repair and lift:
            await self._store.lift()
            found.fenced, found.lifted = "", bool(found.fenced)
        return found

    async def _gone(self) -> list[Gone]:
        told: dict[ReservationId, int] = {}
        for one in await self._store.missed():
            told[one.id] = max(one.version, told.get(one.id, 0))
        gone: list[Gone] = []
        for page in pages(list(told)):
            stored = await self._store.reservations(page)
            booked = await self._book.versions(page)
            for name, there in zip(page, stored, strict=True):
                left = max(there.version if there else 0, booked.get(name, 0))
                if left < told[name]:
                    gone.append(Gone(str(name), told[name], left))
        return gone

    async def _main_orders(self, run: _Run) -> None:
        # What nobody has spoken of for that long, the store forgets.
        since_ms = await self._store.now_ms() - KEPT_MS + _FORGETTING_MS
        async for page in self._book.main_orders(since_ms):
            stored = await self._orders([order.id for order in page])
            for order in page:
                there = stored.get(order.id)
                known = order if there is None else there.joined(order)
                version = there.version if there else 0
                if there is None or version < order.version or known.pack() != there.pack():
                    drift = Drift.MAIN_ORDER_BEHIND if there else Drift.MAIN_ORDER_LOST
                    detail = f"version {order.version} in the book, {version or 'nothing'} in the store"
                    if there is not None and version >= order.version:
                        detail += ", which does not know all that was said of it, or where it was used"
                    mended = run.repair and await self._restore_order(known, version, order.version)
                    run.found.differences.append(Difference(drift, order.id, detail, mended))

    async def _restore_order(self, order: MainOrder, version: int, above: int) -> bool:
        # Unfinished: the sweeper tells the campaigns where it was used what it grants.
        return await self._store.record_order(
            order.id, version, order.pack(), unfinished=True, event=False, above=above
        )

    async def _orders_untold(self, ids: Sequence[str]) -> dict[str, MainOrder]:
        """Of these main orders those of which the store knows what the book does not."""
        stored, told = await self._orders(ids), await self._book.main_orders_named(ids)
        return {
            name: order
            for name, order in stored.items()
            if name not in told or not told[name].joined(order).says_as(told[name])
        }

    async def _orders(self, ids: Sequence[str]) -> dict[str, MainOrder]:
        """Of these main orders those that the store has."""
        stored = await asyncio.gather(*(self._store.order(name) for name in ids))
        return {
            name: MainOrder.unpack(name, one.version, one.body)
            for name, one in zip(ids, stored, strict=True)
            if one is not None
        }

    async def _campaign(self, run: _Run, campaign: str) -> bool:
        """Whether the store has the campaign, so that its reservations can be compared."""
        stored = await self._store.campaign(campaign)
        booked = await self._book.campaign(campaign)
        there, known = stored.revision if stored else 0, booked.revision if booked else 0
        if stored is not None and there > known:
            run.campaigns[campaign] = stored
        elif booked is not None and known > there:
            detail = f"revision {known} in the book, {there or 'none'} in the store"
            if stored is None:
                detail += "; who stood in line for it is not known any more"
            # Paused: nobody reserves before what was lost is there again.
            status = Status.CLOSED if booked.status == Status.CLOSED else Status.PAUSED
            mended = run.repair and await self._configure(campaign, booked.document, status, there, known)
            if mended and status is Status.PAUSED:
                run.found.paused.append(campaign)
            drift = Drift.CAMPAIGN_BEHIND if stored else Drift.CAMPAIGN_LOST
            run.found.differences.append(Difference(drift, campaign, detail, mended))
            return stored is not None or mended or not run.repair  # what it had is told, too
        return stored is not None

    async def _counters(self, run: _Run, campaign: str) -> None:
        if not self._counts:
            return
        snapshot = await self._store.snapshot(campaign)
        found = miscounts(snapshot) if snapshot is not None else []
        mended = False
        if snapshot is not None and found and run.repair:
            outcome = await self._store.adjust(campaign, snapshot.adjusted, found)
            mended = outcome is AdjustOutcome.ADJUSTED
        for one in found:
            detail = f"{one.claimed} claimed, {one.counted} counted"
            name = f"{campaign} {one.counter}"
            run.found.differences.append(Difference(Drift.COUNTER_DIFFERS, name, detail, mended))

    async def _configure(
        self, campaign: str, found: object, status: Status, revision: int, above: int = 0
    ) -> bool:
        """Write a campaign's document into the store, if that still has it in this revision."""
        document = parse_campaign(found)
        configured = await self._store.configure(
            campaign,
            revision,
            status,
            orjson.dumps(document.to_json()),
            {stock_counter(offer.sku): offer.stock for offer in document.offers},
            Campaign(document, 0, status, 0).ends_at_ms,
            above,
        )
        return configured.outcome is ConfigureOutcome.CONFIGURED

    async def _lost(self, run: _Run, campaign: str) -> None:
        """What the book has and the store has not, or not as far."""
        async for page in self._book.reservations(campaign):
            stored = await self._store.reservations([one.id for one in page])
            run.found.differences += [
                _forked(one, there)
                for one, there in zip(page, stored, strict=True)
                if there is not None and there.version == one.version and there.state != one.state
            ]
            behind = [
                (one, there)
                for one, there in zip(page, stored, strict=True)
                if there is None or there.version < one.version
            ]
            now_ms = await self._store.now_ms() if behind else 0
            # In the order in which they were made: the oldest has its claims first.
            run.found.differences += await asyncio.gather(
                *(self._restored(run, *one, now_ms) for one in behind)
            )
            if self._enough(run.found.differences):
                break

    async def _restored(self, run: _Run, one: Booked, there: Reservation | None, now_ms: int) -> Difference:
        drift = Drift.RESERVATION_BEHIND if there else Drift.RESERVATION_LOST
        detail = f"{one.state}, version {one.version}, in the book, "
        detail += f"{there.state}, version {there.version}, in the store" if there else "nothing in the store"
        if one.record is None:
            return Difference(drift, str(one.id), f"{detail}; it was settled before records were kept")
        if not run.repair:
            return Difference(drift, str(one.id), detail)
        overdue = one.state == State.HELD and one.record.deadline <= now_ms
        record = _expired(one.record, now_ms) if overdue else one.record
        outcome, counter = await self._store.restore(one.id, record)
        if outcome is RestoreOutcome.OVER_CAP:
            detail += f"; what it had of {counter} was given to others meanwhile"
        if overdue and outcome is RestoreOutcome.RESTORED:
            detail += "; its time was over"
            await self._store.restate(one.id, Event.EXPIRED)
            run.told.add(one.id)
        mended = outcome in (RestoreOutcome.RESTORED, RestoreOutcome.UNCHANGED)
        return Difference(drift, str(one.id), detail, mended)

    async def _behind(self, run: _Run, campaign: str) -> dict[ReservationId, Reservation]:
        """Reservations that the store has and the book has not, or not as far: not yet, perhaps."""
        behind: dict[ReservationId, Reservation] = {}
        async for some in self._stored(campaign):
            behind |= await self._not_in_the_book([one for one in some if one.id not in run.told])
            if self._enough(behind):
                break
        return behind

    async def _untold(self, run: _Run, behind: dict[ReservationId, Reservation]) -> None:
        """What the store has and the book has not, or not as far, though nothing is on its way any more. All
        of it is waited for at once."""
        orders: dict[str, MainOrder] = {}
        async for ids in self._store.order_ids():
            orders |= await self._orders_untold(ids)
            if self._enough(orders):
                break
        campaigns = run.campaigns
        until = time.monotonic() + self._settle_seconds_max
        while (campaigns or behind or orders) and (looked := time.monotonic()) < until:
            campaigns_left = await self._campaigns_untold(campaigns)
            left: dict[ReservationId, Reservation] = {}
            for page in pages(list(behind.values())):
                left |= await self._not_in_the_book(page)
            orders_left: dict[str, MainOrder] = {}
            for names in pages(list(orders)):
                orders_left |= await self._orders_untold(names)
            before = len(campaigns) + len(behind) + len(orders)
            if len(campaigns_left) + len(left) + len(orders_left) < before:  # it is being settled
                until = time.monotonic() + self._settle_seconds_max
            campaigns, behind, orders = campaigns_left, left, orders_left
            await asyncio.sleep(max(_LOOK_SECONDS, time.monotonic() - looked))
        for campaign, stored in campaigns.items():
            # A change that changes nothing is an event like any other.
            document, status = orjson.loads(stored.document), Status(stored.status)
            mended = run.repair and await self._configure(campaign, document, status, stored.revision)
            detail = f"revision {stored.revision} in the store; the book lacks that"
            run.found.differences.append(Difference(Drift.CAMPAIGN_UNTOLD, campaign, detail, mended))
        for name, one in behind.items():
            detail = (
                f"{one.state}, version {one.version}, in the store; the book lacks that, or a step before it"
            )
            mended = run.repair and await self._restated(name)
            run.found.differences.append(Difference(Drift.RESERVATION_UNTOLD, str(name), detail, mended))
        for order in orders.values():
            detail = f"{order.state}, version {order.version}, in the store; the book lacks that"
            mended = run.repair and await self._store.record_order(
                order.id, order.version, order.pack(), unfinished=None, event=True, above=order.version
            )
            run.found.differences.append(Difference(Drift.MAIN_ORDER_UNTOLD, order.id, detail, mended))

    async def _campaigns_untold(self, campaigns: dict[str, StoredCampaign]) -> dict[str, StoredCampaign]:
        """Those of some of which the book has not heard in their revision."""
        booked = {name: await self._book.campaign(name) for name in campaigns}
        known = {name: one.revision for name, one in booked.items() if one is not None}
        return {name: one for name, one in campaigns.items() if known.get(name, 0) < one.revision}

    def _enough(self, found: Collection[object]) -> bool:
        return self._differences_max is not None and len(found) >= self._differences_max

    async def _stored(self, campaign: str) -> AsyncIterator[list[Reservation]]:
        cursor = 0
        while True:
            cursor, some = await self._store.scan(campaign, cursor)
            yield some
            if cursor == 0:
                return

    async def _not_in_the_book(self, some: Collection[Reservation]) -> dict[ReservationId, Reservation]:
        """Those of some that the book does not have in their version, with all that led there."""
        versions = await self._book.versions([one.id for one in some])
        return {one.id: one for one in some if versions.get(one.id, 0) < one.version}

    async def _restated(self, reservation_id: ReservationId) -> bool:
        outcome = await self._store.restate(reservation_id, Event.RESTATED)
        return outcome is RestateOutcome.RESTATED


def _expired(held: Record, now_ms: int) -> Record:
    """A hold that would end at once. Perhaps it had, and others have had its units and its quota since: so it
    takes neither again."""
    return held._replace(
        state=State.EXPIRED, version=held.version + 1, claims=(), updated_at=now_ms, deadline=0
    )


def _forked(one: Booked, there: Reservation) -> Difference:
    """Two stores have gone on from the same version, as two masters do. Who is right is not for us to say."""
    detail = f"version {one.version} is {one.state} in the book, and {there.state} in the store"
    return Difference(Drift.RESERVATION_FORKED, str(one.id), detail)
