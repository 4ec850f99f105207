"""Reservations, for the users whose they are."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from gateway.admission import Admission, overloaded
from gateway.auth import Authenticator, User
from gateway.endpoint import granted, invalid, json_response, read_document
from gateway.metrics import REPLAYS, RESERVATIONS
from gateway.problems import Problem
from gateway.traffic import REPLAYED, Traffic
from gateway.views import reservation_view
from reservation.campaign import Document, Text
from reservation.catalog import Catalog
from reservation.desk import Desk, Request
from reservation.ids import ReservationId
from reservation.main_order import OrderId
from reservation.outcomes import Outcome, Refusal, StoreUnavailable
from reservation.record import Reservation
from reservation.tracing import concerns, current

QUANTITY_MAX = 1_000_000
KEY_CHARS_MAX = 255
PAGE_MAX = 100
PAGE = 50


Quantity = Annotated[int, Field(ge=1, le=QUANTITY_MAX)]


class ReserveBody(Document):
    """What a shopper sends to reserve, or to stand in line."""

    sku: Text
    quantity: Quantity = 1
    order_id: OrderId | None = None
    """The main order that a trade-in belongs to."""


class AmendBody(Document):
    """What a shopper sends to change a reservation."""

    quantity: Quantity


class Reservations:
    """The endpoints of a user's own reservations."""

    def __init__(
        self,
        desk: Desk,
        catalog: Catalog,
        authenticator: Authenticator,
        admission: Admission,
        traffic: Traffic,
    ) -> None:
        self._traffic = traffic
        self._admission = admission
        self._desk = desk
        self._catalog = catalog
        self._authenticator = authenticator
        self._counters: dict[tuple[str, str], Any] = {}

    async def reserve(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        key = _idempotency_key(request)
        campaign_id = request.match_info["campaign"]
        if self._admission.closed_to_reservations:
            self._count(campaign_id, "overloaded", user)
            raise overloaded()
        body = await read_document(request, ReserveBody)
        wanted = Request(body.sku, body.quantity, body.order_id)
        try:
            answer = await self._desk.reserve(campaign_id, user.id, user.tier, key, wanted)
        except StoreUnavailable:
            self._count(campaign_id, Outcome.STORE_UNAVAILABLE, user)
            raise
        if isinstance(answer, Refusal):
            self._count(campaign_id, answer.code, user)
            raise Problem.of(answer)
        if answer.replayed:
            REPLAYS.labels(campaign_id).inc()
            self._traffic.asked(campaign_id, REPLAYED, [user.id])
        else:
            self._count(campaign_id, "held", user)
        _note("replayed" if answer.replayed else "held")
        headers = {"Location": f"/v1/reservations/{answer.reservation.id}"}
        if answer.replayed:
            headers["Idempotent-Replayed"] = "true"
        return json_response(await self.view(answer.reservation), status=201, headers=headers)

    async def view(self, reservation: Reservation) -> dict[str, Any]:
        """The reservation as its user sees it."""
        return reservation_view(reservation, await self._catalog.get(reservation.id.campaign))

    async def get(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        reservation = granted(await self._desk.read(reservation_id(request), user.id))
        return json_response(await self.view(reservation))

    async def amend(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        found = reservation_id(request)
        body = await read_document(request, AmendBody)
        reservation = granted(await self._desk.amend(found, user.id, body.quantity))
        return json_response(await self.view(reservation))

    async def cancel(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        reservation = granted(await self._desk.cancel(reservation_id(request), user.id))
        return json_response(await self.view(reservation))

    async def list(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        limit = page_limit(request.query.get("limit"), PAGE)
        found = await self._desk.list_of(user.id, request.query.get("campaign"))
        after = request.query.get("after")
        if after is not None:
            last = ReservationId.parse(after)
            places = [place for place, one in enumerate(found) if one.id == last]
            if not places:
                raise invalid("after", "must be the `next` of an earlier page")
            found = found[places[0] + 1 :]
        page = found[:limit]
        return json_response(
            {
                "reservations": [await self.view(one) for one in page],
                "next": str(page[-1].id) if len(found) > len(page) else None,
            }
        )

    def _count(self, campaign_id: str, outcome: str, user: User) -> None:
        counter = self._counters.get((campaign_id, outcome))
        if counter is None:
            # Labels come from us, never from a path: a scanner must not make a series a request.
            campaign = self._catalog.known(campaign_id)
            labels = (campaign.id, campaign.kind) if campaign else ("", "")
            counter = RESERVATIONS.labels(*labels, outcome)
            if campaign is not None:
                self._counters[campaign_id, outcome] = counter
        counter.inc()
        if (campaign_id, outcome) in self._counters:
            self._traffic.asked(campaign_id, outcome, [user.id])


def reservation_id(request: web.Request) -> ReservationId:
    found = ReservationId.parse(request.match_info["reservation"])
    if found is None:
        raise Problem("reservation_not_found", "There is no such reservation.")
    concerns(found)
    return found


def _note(outcome: str) -> None:
    operation = current()
    if operation is not None:
        operation.outcome = outcome


def is_idempotency_key(key: str) -> bool:
    return 0 < len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable()


def _idempotency_key(request: web.Request) -> str:
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return str(uuid.uuid4())  # every request is another; quotas still hold
    key = keys[0]
    if len(keys) > 1 or not is_idempotency_key(key):
        raise invalid(
            "Idempotency-Key", f"must be one header of 1 to {KEY_CHARS_MAX} printable ASCII characters"
        )
    return key


def page_limit(text: str | None, default: int) -> int:
    """The page size that a query asks for. Raises Invalid."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= PAGE_MAX):
        raise invalid("limit", f"must be a number from 1 to {PAGE_MAX}")
    return int(text)
