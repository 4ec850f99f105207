"""The waitlist: who stands in line for an offer that is sold out, and who is served next.

Stock that comes back is held for the first in line whom it suffices for. While anybody stands in
line the script lets nobody else have any, so nothing can be snatched away in between.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, replace

import orjson

from reservation.campaign import Campaign, stock_counter
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.desk import ATTEMPTS_MAX, Desk, Request, no_campaign, refusal_of
from reservation.ids import digest_of
from reservation.kernel import Place, Store
from reservation.outcomes import Contended, Outcome, PlaceOutcome, Refusal, StoreUnavailable
from reservation.steps import Event

SERVED_MAX = 100
"""How far down a queue is looked at once."""
_NOT_NOW = frozenset({Outcome.CONFLICT, Outcome.SOLD_OUT, Outcome.NOT_STARTED, Outcome.PAUSED})
"""Another sweeper was first, or there is nothing to serve with."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A user's place in the queue for an offer; the first has position 1."""

    sku: str
    quantity: int
    position: int


class Waitlist:
    """The use cases of standing in line."""

    def __init__(self, store: Store, catalog: Catalog, clock: StoreClock, desk: Desk) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._desk = desk

    async def join(
        self, campaign_id: str, user: str, tier: str | None, request: Request
    ) -> Waiting | Refusal:
        """Stand in line; asking again keeps the place, another quantity is a new one. Raises Invalid."""
        for attempt in range(ATTEMPTS_MAX):
            campaign = await (self._catalog.load if attempt else self._catalog.get)(campaign_id)
            if campaign is None:
                return no_campaign(campaign_id)
            if campaign.document.waitlist is False:
                return Refusal(Outcome.WRONG_STATE, "This campaign has no waitlist.")
            terms, why = await self._desk.terms(campaign, user, tier, request)
            details = orjson.dumps({"tier": tier, "order_id": request.order_id})
            outcome, now_ms, position = await self._store.take_place(terms, user, details)
            self._clock.hear(now_ms)
            if outcome is PlaceOutcome.PLACED:
                return Waiting(request.sku, request.quantity, position)
            if outcome is Outcome.STALE:
                continue
            if outcome is Outcome.STORE_UNAVAILABLE:
                raise StoreUnavailable(f"the store does not have campaign {campaign_id}")
            if outcome is Outcome.WRONG_STATE:
                return Refusal(outcome, "There is enough left: reserve it.")
            return refusal_of(Outcome(outcome), campaign, now_ms, why)
        raise Contended(campaign_id)

    async def places(self, campaign_id: str, user: str) -> list[Waiting] | Refusal:
        """The user's places in this campaign's queues."""
        campaign = await self._catalog.get(campaign_id)
        if campaign is None:
            return no_campaign(campaign_id)
        found = await self._store.places(campaign_id, user, list(campaign.offers))
        return [Waiting(sku, place.quantity, position) for sku, (position, place) in found.items()]

    async def leave(self, campaign_id: str, user: str, sku: str | None) -> Refusal | None:
        """Give up the place for one SKU, or all. Twice is harmless."""
        campaign = await self._catalog.get(campaign_id)
        if campaign is None:
            return no_campaign(campaign_id)
        if sku is not None:
            skus = [sku]
        else:
            skus = list(await self._store.places(campaign_id, user, list(campaign.offers)))
        for one in skus:
            await self._store.leave_place(campaign_id, one, user)
        if not skus:
            await self._store.confirm(campaign_id)  # by whomever they were given up
        return None

    async def serve(self) -> int:
        """Hold what has come back for those whose turn it is; how many were served."""
        queues = await self._store.queues()
        return sum(await asyncio.gather(*(self._serve(campaign_id, sku) for campaign_id, sku in queues)))

    async def _serve(self, campaign_id: str, sku: str) -> int:
        served = 0
        while True:
            campaign = await self._catalog.get(campaign_id)
            standing = await self._store.standing(campaign_id, [stock_counter(sku)])
            left = standing.levels[0].cap - standing.levels[0].used
            is_over = campaign is None or campaign.takes_no_more(self._clock.now_ms())
            places = await self._store.queue(campaign_id, sku, SERVED_MAX)
            turn = next((one for one in places if one.quantity <= left or is_over), None)
            if campaign is None or turn is None:
                return served
            outcome = await self._offer(campaign, sku, turn)
            if outcome in _NOT_NOW:
                return served
            served += outcome is Outcome.MOVED

    async def _offer(self, campaign: Campaign, sku: str, place: Place) -> Outcome:
        details = orjson.loads(place.details)
        request = Request(sku, place.quantity, details["order_id"])
        terms, _ = await self._desk.terms(campaign, place.user, details["tier"], request)
        terms = replace(terms, event=Event.OFFERED, hold_ms=campaign.waitlist_hold_ms, serves=True)
        # Any id will do: a place is served once, so nothing is made twice.
        digest = digest_of(campaign.id, place.user, uuid.uuid4().hex)
        outcome, now_ms, _ = await self._store.reserve(terms, digest, place.user)
        self._clock.hear(now_ms)
        if outcome is Outcome.STALE:
            await self._catalog.load(campaign.id)
        elif outcome is not Outcome.MOVED and outcome not in _NOT_NOW:
            # The campaign is over, or the user's own limits refuse by now.
            await self._store.leave_place(campaign.id, sku, place.user)
        return outcome
