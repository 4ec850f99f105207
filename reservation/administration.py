"""What merchants and operators do to campaigns: create, change, restock, pause, resume, close."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Protocol

import orjson

from reservation.campaign import UNITS_MAX, Campaign, CampaignDocument, Status, stock_counter
from reservation.catalog import Catalog, parse_campaign
from reservation.desk import no_campaign
from reservation.kernel import Store
from reservation.outcomes import ConfigureOutcome, Contended, Outcome, Refusal, StoreUnavailable
from reservation.validation import FieldError, Invalid

_ATTEMPTS_MAX = 20
_FIXED = ("kind", "currency")


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"


class Change(StrEnum):
    """What an apply did."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


class CampaignMemory(Protocol):
    """The book's memory of campaigns."""

    async def remembers(self, campaign: str) -> bool:
        """Whether the book knows this campaign."""
        ...


class Administration:
    """Changes to campaigns. Each is decided on one revision and applied to that one or decided anew."""

    def __init__(self, store: Store, catalog: Catalog, memory: CampaignMemory) -> None:
        self._store = store
        self._catalog = catalog
        self._memory = memory
        # Of this process' changes, one at a time: only other processes' can come in between then.
        self._turn = asyncio.Lock()

    async def put(self, document: CampaignDocument) -> tuple[Change, Campaign]:
        """Create or change a campaign so that it is as the document says. Raises Invalid."""
        async with self._turn:
            for _ in range(_ATTEMPTS_MAX):
                campaign = await self._catalog.load(document.id)
                if campaign is None:
                    if await self._memory.remembers(document.id):
                        if await self._catalog.load(document.id) is not None:
                            continue  # somebody created it just now
                        # To create it anew would sell its stock a second time.
                        raise StoreUnavailable(f"the store has lost campaign {document.id}; the book has it")
                    status, change = Status.RUNNING, Change.CREATED
                elif campaign.document == document:
                    await self._store.confirm(document.id)  # by whomever it was made
                    return Change.UNCHANGED, campaign
                else:
                    _refuse_fixed(campaign, document)
                    status, change = campaign.status, Change.CHANGED
                done = await self._configure(campaign, document, status)
                if done is not None:
                    return change, done
            raise Contended(document.id)

    async def act(self, campaign_id: str, action: Action) -> Campaign | Refusal:
        """Pause, resume or close. To do it twice is harmless; a closed campaign stays closed."""
        async with self._turn:
            for _ in range(_ATTEMPTS_MAX):
                campaign = await self._catalog.load(campaign_id)
                if campaign is None:
                    return no_campaign(campaign_id)
                status = _STATUS[action]
                if campaign.status is status:
                    await self._store.confirm(campaign_id)  # by whomever it was done
                    return campaign
                if campaign.status is Status.CLOSED:
                    return Refusal(Outcome.WRONG_STATE, "The campaign is closed, and stays so.")
                done = await self._configure(campaign, campaign.document, status)
                if done is not None:
                    return done
            raise Contended(campaign_id)

    async def restock(self, campaign_id: str, sku: str, delta: int) -> Campaign | Refusal:
        """Add to an offer's stock, or take from it what is neither held nor sold."""
        async with self._turn:
            for _ in range(_ATTEMPTS_MAX):
                campaign = await self._catalog.load(campaign_id)
                if campaign is None:
                    return no_campaign(campaign_id)
                offer = campaign.offers.get(sku)
                if offer is None:
                    return Refusal(Outcome.OFFER_NOT_FOUND, f"The campaign has no offer {sku}.")
                stock = offer.stock + delta
                if stock > UNITS_MAX:
                    raise Invalid(FieldError("delta", f"stock may be at most {UNITS_MAX}"))
                found = campaign.document.to_json()
                for line in found["offers"]:
                    if line["sku"] == sku:
                        line["stock"] = max(stock, 0)
                try:
                    done = stock >= 0 and await self._configure(
                        campaign, parse_campaign(found), campaign.status
                    )
                except Invalid:
                    done = False
                if done is False:
                    return Refusal(Outcome.WRONG_STATE, "Stock cannot fall below what is held and sold.")
                if done:
                    return done
            raise Contended(campaign_id)

    async def _configure(
        self, campaign: Campaign | None, document: CampaignDocument, status: Status
    ) -> Campaign | None:
        """The campaign as changed, or None when somebody else changed it first."""
        offers = {offer.sku: offer.stock for offer in document.offers}
        caps = {stock_counter(sku): stock for sku, stock in offers.items()}
        if campaign is not None:
            gone = campaign.offers.keys() - offers.keys()
            caps |= {stock_counter(sku): 0 for sku in gone}
        changed = Campaign(document, 0, status, 0)
        configured = await self._store.configure(
            document.id,
            campaign.revision if campaign else 0,
            status,
            orjson.dumps(document.to_json()),
            caps,
            changed.ends_at_ms,
        )
        if configured.outcome is ConfigureOutcome.CONFLICT:
            return None
        if configured.outcome is ConfigureOutcome.BELOW_USED:
            sku = configured.counter.removeprefix(stock_counter(""))
            places = [i for i, offer in enumerate(document.offers) if offer.sku == sku]
            path = f"offers[{places[0]}].stock" if places else "offers"
            raise Invalid(FieldError(path, f"{sku}: stock cannot fall below what is held and sold"))
        return await self._catalog.load(document.id)


_STATUS = {Action.PAUSE: Status.PAUSED, Action.RESUME: Status.RUNNING, Action.CLOSE: Status.CLOSED}


def _refuse_fixed(campaign: Campaign, document: CampaignDocument) -> None:
    errors = [
        FieldError(name, "cannot change once the campaign exists")
        for name in _FIXED
        if getattr(campaign.document, name) != getattr(document, name)
    ]
    if errors:
        raise Invalid(*errors)
