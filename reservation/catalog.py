"""The campaigns as this process knows them, kept up with the store.

A change reaches every process within REFRESH_SECONDS. Nothing depends on that being sooner: a move
names the revision it was decided on, and the store turns a stale one away.
"""

from __future__ import annotations

import asyncio

import orjson
import structlog

from reservation.campaign import Campaign, CampaignDocument, Status
from reservation.clock import StoreClock
from reservation.kernel import START, Store
from reservation.kinds import KINDS
from reservation.outcomes import StoreUnavailable
from reservation.validation import FieldError, Invalid, parse

REFRESH_SECONDS = 0.25
_log = structlog.get_logger(__name__)


def parse_campaign(found: object) -> CampaignDocument:
    """The campaign that a JSON value describes. Raises Invalid."""
    if not isinstance(found, dict):
        raise Invalid(FieldError("", "must be an object"))
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Invalid(FieldError("kind", f"must be one of: {', '.join(KINDS)}"))
    return parse(KINDS[kind].document, found)


class Catalog:
    """Campaigns by id. Run `follow` beside it to keep it fresh."""

    def __init__(self, store: Store, clock: StoreClock) -> None:
        self._store = store
        self._clock = clock
        self._campaigns: dict[str, Campaign] = {}
        self._cursor = START

    def all(self) -> list[Campaign]:
        return [self._campaigns[name] for name in sorted(self._campaigns)]

    def known(self, campaign_id: str) -> Campaign | None:
        """The campaign, if this process has heard of it."""
        return self._campaigns.get(campaign_id)

    async def get(self, campaign_id: str) -> Campaign | None:
        """The campaign, asking the store when this process has not heard of it."""
        return self._campaigns.get(campaign_id) or await self.load(campaign_id)

    async def load(self, campaign_id: str) -> Campaign | None:
        """The campaign as the store has it now."""
        stored = await self._store.campaign(campaign_id)
        if stored is None:
            if await self._store.fenced():
                raise StoreUnavailable(f"the store is fenced, and may have lost campaign {campaign_id}")
            self._campaigns.pop(campaign_id, None)
            return None
        known = self._campaigns.get(campaign_id)
        if known is not None and known.revision == stored.revision:
            return known
        document = parse_campaign(orjson.loads(stored.document))
        campaign = Campaign(document, stored.revision, Status(stored.status), stored.changed_at_ms)
        self._campaigns[campaign_id] = campaign
        return campaign

    async def refresh(self) -> None:
        """Take in what has changed since the last look, and the store's time."""
        changes = await self._store.changes(self._cursor)
        self._clock.hear(changes.now_ms)
        for campaign_id in changes.campaigns:
            try:
                await self.load(campaign_id)
            except Invalid as invalid:  # written by another version: the others still sell
                _log.error("campaign_not_understood", campaign=campaign_id, error=str(invalid))
        self._cursor = changes.cursor

    async def follow(self) -> None:
        """Refresh for ever; a store that is away is asked again."""
        away = False
        while True:
            try:
                await self.refresh()
                away = False
            except StoreUnavailable as error:
                if not away:
                    _log.warning("catalog_not_refreshed", error=str(error))
                away = True
            await asyncio.sleep(REFRESH_SECONDS)
