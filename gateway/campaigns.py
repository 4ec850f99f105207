"""Campaigns, for everybody: what is on sale, from when, and how much is left."""

from __future__ import annotations

import asyncio
import time
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from gateway.problems import Problem
from gateway.traffic import Visits
from gateway.views import campaign_view, stock_counters
from reservation.campaign import Campaign
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.desk import no_campaign
from reservation.kernel import Store
from reservation.outcomes import StoreUnavailable

FRESH_SECONDS = 0.2
"""How old an answer may be. The contract allows 1 s, which includes a change's way to this process."""


class _Shown(NamedTuple):
    view: dict[str, Any]
    body: bytes
    etag: str
    at: float


class Shop:
    """Campaign answers, made once for all who ask within FRESH_SECONDS."""

    def __init__(self, store: Store, catalog: Catalog, clock: StoreClock, visits: Visits) -> None:
        self._visits = visits
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._shown: dict[str, _Shown] = {}
        self._making: dict[str, asyncio.Task[_Shown | None]] = {}

    async def list(self, request: web.Request) -> web.Response:
        shown = await asyncio.gather(*(self._fresh(campaign.id) for campaign in self._catalog.all()))
        found = [one for one in shown if one is not None]
        body = b'{"campaigns":[' + b",".join(one.body for one in found) + b"]}"
        return _conditional(request, body, _etag("".join(one.etag for one in found).encode()))

    async def get(self, request: web.Request) -> web.Response:
        campaign_id = request.match_info["campaign"]
        shown = await self._fresh(campaign_id)
        if shown is None:
            raise Problem.of(no_campaign(campaign_id))
        await self._visits.note(request, campaign_id)
        return _conditional(request, shown.body, shown.etag)

    async def recent(self, campaign_id: str) -> dict[str, Any] | None:
        """The campaign as it was within FRESH_SECONDS; not to be changed."""
        shown = await self._fresh(campaign_id)
        return None if shown is None else shown.view

    async def view(self, campaign: Campaign) -> dict[str, Any]:
        """The campaign as it is at this moment."""
        standing = await self._store.standing(campaign.id, stock_counters(campaign))
        if not standing.known:
            raise StoreUnavailable(f"the store does not have campaign {campaign.id}")
        return campaign_view(campaign, standing, self._clock.now_ms())

    async def _fresh(self, campaign_id: str) -> _Shown | None:
        shown = self._shown.get(campaign_id)
        if shown is not None and time.monotonic() - shown.at < FRESH_SECONDS:
            return shown
        task = self._making.get(campaign_id)
        if task is None:  # one asks the store, the others wait for what it says
            task = self._making[campaign_id] = asyncio.create_task(self._make(campaign_id))
            task.add_done_callback(lambda _: self._making.pop(campaign_id, None))
        return await asyncio.shield(task)

    async def _make(self, campaign_id: str) -> _Shown | None:
        campaign = await self._catalog.get(campaign_id)
        if campaign is None:
            return None
        at = time.monotonic()
        view = await self.view(campaign)
        timeless = {name: value for name, value in view.items() if name != "server_time"}
        shown = _Shown(view, orjson.dumps(view), _etag(orjson.dumps(timeless)), at)
        self._shown[campaign_id] = shown
        return shown


def _etag(content: bytes) -> str:
    # Weak: two answers with one tag may differ in server_time.
    return f'W/"{blake2b(content, digest_size=12).hexdigest()}"'


def _conditional(request: web.Request, body: bytes, etag: str) -> web.Response:
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if etag.removeprefix("W/") in known or known == ["*"]:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)
