"""What services do to campaigns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from aiohttp import web
from pydantic import Field

from gateway.auth import Authenticator
from gateway.campaigns import Shop
from gateway.endpoint import DOCUMENT_BYTES_MAX, granted, invalid, json_response, read_document, read_json
from gateway.problems import Problem
from reservation.administration import Action, Administration, Change
from reservation.campaign import UNITS_MAX, Document
from reservation.catalog import Catalog, parse_campaign
from reservation.desk import no_campaign


class ActionBody(Document):
    action: Action


class StockBody(Document):
    delta: Annotated[int, Field(ge=-UNITS_MAX, le=UNITS_MAX)]


class Audited(Protocol):
    def to_json(self) -> dict[str, Any]: ...


Audit = Callable[[list[str]], Awaitable[Audited]]
"""Audits the campaigns of these ids; settlement.audit does."""


class Admin:
    """The endpoints of merchants and operators."""

    def __init__(
        self,
        administration: Administration,
        catalog: Catalog,
        shop: Shop,
        authenticator: Authenticator,
        audit: Audit,
    ) -> None:
        self._administration = administration
        self._catalog = catalog
        self._shop = shop
        self._authenticator = authenticator
        self._audit = audit

    async def put(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        campaign_id = request.match_info["campaign"]
        found = await read_json(request, DOCUMENT_BYTES_MAX)
        if isinstance(found, dict) and found.setdefault("id", campaign_id) != campaign_id:
            raise invalid("id", "must be the campaign that the path names")
        change, campaign = await self._administration.put(parse_campaign(found))
        status = 201 if change is Change.CREATED else 200
        return json_response(await self._shop.view(campaign), status=status)

    async def act(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        body = await read_document(request, ActionBody)
        campaign = granted(await self._administration.act(request.match_info["campaign"], body.action))
        return json_response(await self._shop.view(campaign))

    async def restock(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        body = await read_document(request, StockBody)
        sku = request.match_info["sku"]
        campaign = granted(
            await self._administration.restock(request.match_info["campaign"], sku, body.delta)
        )
        view = await self._shop.view(campaign)
        offer = next((offer for offer in view["offers"] if offer["sku"] == sku), None)
        if offer is None:  # taken off the campaign a moment later
            raise Problem("offer_not_found", "The campaign has no such offer any more.")
        return json_response(offer)

    async def audit(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        campaign_id = request.match_info["campaign"]
        if await self._catalog.get(campaign_id) is None:
            raise Problem.of(no_campaign(campaign_id))
        return json_response((await self._audit([campaign_id])).to_json())
