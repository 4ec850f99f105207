"""Main orders, as services report them: what entitles to trade-ins."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from gateway.auth import Authenticator
from gateway.endpoint import DOCUMENT_BYTES_MAX, granted, invalid, json_response, read_document, read_json
from gateway.problems import Problem
from gateway.reservations import Reservations
from gateway.views import order_view
from reservation.campaign import MONEY_MAX, Document, Text
from reservation.desk import Desk
from reservation.ids import ReservationId
from reservation.main_order import MainOrder, OrderId, ReportedOrder
from reservation.order_desk import OrderDesk
from reservation.tracing import concerns
from reservation.validation import Invalid, parse


class _Named(Document):
    order_id: OrderId


class OrderPaymentBody(Document):
    """What a service says when the main order's payment has paid for a trade-in as well."""

    reservation: str
    amount: Annotated[int, Field(ge=1, le=MONEY_MAX * 1_000_000)]
    currency: str
    provider_ref: Text


class Orders:
    """The endpoints of main orders."""

    def __init__(
        self, orders: OrderDesk, desk: Desk, reservations: Reservations, authenticator: Authenticator
    ) -> None:
        self._orders = orders
        self._desk = desk
        self._reservations = reservations
        self._authenticator = authenticator

    async def report(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        report = parse(ReportedOrder, await read_json(request, DOCUMENT_BYTES_MAX))
        order = granted(await self._orders.report(report))
        return await self._answer(order, 201 if order.version == 1 else 200)

    async def get(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        order = await self._orders.read(_order_id(request))
        if order is None:
            raise Problem("order_not_found", "No such order was ever reported.")
        return await self._answer(order)

    async def cancel(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        return await self._answer(await self._orders.cancel(_order_id(request)))

    async def pay(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        order_id = _order_id(request)
        body = await read_document(request, OrderPaymentBody)
        found = ReservationId.parse(body.reservation)
        if found is None:
            raise invalid("reservation", "must be a reservation's id")
        concerns(found)
        reservation = granted(
            await self._desk.pay_with_order(found, order_id, body.amount, body.currency, body.provider_ref)
        )
        return json_response(await self._reservations.view(reservation))

    async def _answer(self, order: MainOrder, status: int = 200) -> web.Response:
        granted_now = await self._orders.granted(order)
        trade_ins = await self._orders.trade_ins(order)
        return json_response(order_view(order, granted_now, trade_ins), status=status)


def _order_id(request: web.Request) -> str:
    order_id = request.match_info["order"]
    try:
        return parse(_Named, {"order_id": order_id}).order_id
    except Invalid:
        raise Problem("order_not_found", "That is no order's id.") from None
