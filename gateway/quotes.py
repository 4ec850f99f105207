"""Quotes: what a basket would cost, before anything is taken."""

from __future__ import annotations

from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import Field, model_validator

from gateway.auth import Authenticator
from gateway.endpoint import granted, json_response, read_document
from gateway.reservations import Quantity
from gateway.traffic import QUOTED, Traffic
from reservation.campaign import Document, Text
from reservation.desk import Desk, Request
from reservation.main_order import OrderId
from reservation.record import Price

LINES_MAX = 100


class QuoteLine(Document):
    sku: Text
    quantity: Quantity = 1


class QuoteBody(Document):
    """A basket: {sku, quantity} for one line, or items for several."""

    sku: Text | None = None
    quantity: Quantity = 1
    items: Annotated[list[QuoteLine], Field(min_length=1, max_length=LINES_MAX)] | None = None
    order_id: OrderId | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.sku is None) == (self.items is None):
            raise ValueError("there must be either a sku or items")
        return self

    def requests(self) -> list[Request]:
        if self.sku is not None:
            return [Request(self.sku, self.quantity)]
        return [Request(line.sku, line.quantity) for line in self.items or ()]


class Quotes:
    """The endpoint of quotes. Each line is priced as a reservation of it would be."""

    def __init__(self, desk: Desk, authenticator: Authenticator, traffic: Traffic) -> None:
        self._traffic = traffic
        self._desk = desk
        self._authenticator = authenticator

    async def quote(self, request: web.Request) -> web.Response:
        await self._authenticator.user(request)
        body = await read_document(request, QuoteBody)
        campaign_id = request.match_info["campaign"]
        lines = body.requests()
        prices = granted(await self._desk.quote(campaign_id, lines))
        self._traffic.count(campaign_id, QUOTED)
        view: dict[str, Any] = {"campaign": campaign_id, **_sum(prices)}
        view["lines"] = [
            {"sku": line.sku, "quantity": line.quantity, "price": price.to_json()}
            for line, price in zip(lines, prices, strict=True)
        ]
        if body.sku is not None:  # as the reservation would show it
            view |= {"sku": body.sku, "quantity": body.quantity, "price": prices[0].to_json()}
        return json_response(view)


def _sum(prices: list[Price]) -> dict[str, Any]:
    """The basket's amounts: those of its lines together."""
    discounts: dict[str, int] = {}
    for price in prices:
        for code, amount in price.discounts:
            discounts[code] = discounts.get(code, 0) + amount
    return {
        "currency": prices[0].currency,
        "unit": prices[0].unit if len(prices) == 1 else None,
        "total": sum(price.total for price in prices),
        "deposit": sum(price.deposit for price in prices),
        "deposit_worth": sum(price.deposit_worth for price in prices),
        "discounts": [{"code": code, "amount": amount} for code, amount in discounts.items()],
        "balance": sum(price.balance for price in prices),
    }
