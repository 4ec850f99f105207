"""Waitlists, for the users who stand in line."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.auth import Authenticator
from gateway.endpoint import granted, json_response, read_document
from gateway.problems import Problem
from gateway.reservations import ReserveBody
from gateway.traffic import WAITLISTED, Traffic
from reservation.desk import Request
from reservation.outcomes import Refusal
from reservation.waitlist import Waiting, Waitlist


class Waitlists:
    """The endpoints of a user's own places."""

    def __init__(self, waitlist: Waitlist, authenticator: Authenticator, traffic: Traffic) -> None:
        self._traffic = traffic
        self._waitlist = waitlist
        self._authenticator = authenticator

    async def join(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        body = await read_document(request, ReserveBody)
        wanted = Request(body.sku, body.quantity, body.order_id)
        campaign_id = request.match_info["campaign"]
        waiting = granted(await self._waitlist.join(campaign_id, user.id, user.tier, wanted))
        self._traffic.count(campaign_id, WAITLISTED)
        return json_response(_view(waiting), status=201)

    async def get(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        places = granted(await self._waitlist.places(request.match_info["campaign"], user.id))
        return json_response({"places": [_view(one) for one in places]})

    async def leave(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        sku = request.query.get("sku")
        refusal = await self._waitlist.leave(request.match_info["campaign"], user.id, sku)
        if isinstance(refusal, Refusal):
            raise Problem.of(refusal)
        return json_response({"state": "left", "sku": sku})


def _view(waiting: Waiting) -> dict[str, Any]:
    return {
        "sku": waiting.sku,
        "quantity": waiting.quantity,
        "position": waiting.position,
        "state": "waiting",
    }
