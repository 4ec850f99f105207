"""Rankings: who spends most in a campaign."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.auth import Authenticator
from gateway.endpoint import json_response
from gateway.problems import Problem
from gateway.reservations import page_limit
from gateway.views import masked
from reservation.catalog import Catalog
from reservation.desk import no_campaign
from reservation.kernel import Store

TOP = 10


class Rankings:
    """The endpoint of a campaign's buyers by spend. Who has the same has the same rank."""

    def __init__(self, store: Store, catalog: Catalog, authenticator: Authenticator) -> None:
        self._store = store
        self._catalog = catalog
        self._authenticator = authenticator

    async def buyers(self, request: web.Request) -> web.Response:
        campaign_id = request.match_info["campaign"]
        user = await self._authenticator.anyone(request)
        limit = page_limit(request.query.get("limit"), TOP)
        campaign = await self._catalog.get(campaign_id)
        if campaign is None:
            raise Problem.of(no_campaign(campaign_id))
        own = user.id if user else None
        ranking = await self._store.ranking(campaign_id, own, limit)
        entries: list[dict[str, Any]] = []
        for place, (name, amount) in enumerate(ranking.entries, 1):
            same = entries and entries[-1]["amount"] == amount
            rank = entries[-1]["rank"] if same else place
            entries.append({"rank": rank, "user": name if name == own else masked(name), "amount": amount})
        me = None
        if ranking.own is not None:
            me = {"rank": ranking.above + 1, "user": own, "amount": ranking.own}
        return json_response(
            {
                "campaign": campaign_id,
                "currency": campaign.document.currency,
                "final": ranking.final,
                "entries": entries,
                "me": me,
            }
        )
