"""How campaigns, reservations, payments and main orders look on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reservation.campaign import Campaign, rfc3339, stock_counter
from reservation.kernel import Standing
from reservation.main_order import MainOrder
from reservation.order_desk import Granted
from reservation.record import Payment, Reservation
from reservation.steps import due, due_by_ms


def campaign_view(campaign: Campaign, standing: Standing, now_ms: int) -> dict[str, Any]:
    """The campaign's document, with its phase, the time, and what is left of each offer."""
    view = campaign.document.to_json()
    view["phase"] = campaign.phase(now_ms)
    view["server_time"] = rfc3339(now_ms)
    for offer, level in zip(view["offers"], standing.levels, strict=True):
        offer["stock"] = level.cap  # of the same instant as what is left of it
        offer["remaining"] = max(0, level.cap - level.used)
        offer["sold_out"] = level.used >= level.cap
    return view


def stock_counters(campaign: Campaign) -> list[str]:
    """The counters that campaign_view wants the levels of, in its order."""
    return [stock_counter(sku) for sku in campaign.offers]


def reservation_view(reservation: Reservation, campaign: Campaign | None) -> dict[str, Any]:
    """The reservation; its campaign says by when a balance is due."""
    facts = reservation.facts
    owed = due(reservation)
    view = {
        "id": str(reservation.id),
        "campaign": reservation.id.campaign,
        "kind": facts.kind,
        "sku": reservation.sku,
        "quantity": reservation.quantity,
        "user": reservation.user,
        "state": reservation.state,
        "version": reservation.version,
        "due": owed
        and {
            "stage": owed.stage,
            "amount": owed.amount,
            "currency": facts.price.currency,
            "by": rfc3339(due_by_ms(reservation, campaign)),
        },
        "price": facts.price.to_json(),
        "created_at": rfc3339(reservation.created_at_ms),
        "updated_at": rfc3339(reservation.updated_at_ms),
    }
    if len(reservation.lines) > 1 or facts.items:
        view["lines"] = reservation.lines  # a bundle, or gifts: more than the sku says
    if facts.order_id is not None:
        view["order_id"] = facts.order_id
    return view


def payment_view(reservation: Reservation, payment: Payment, pay_url: str | None) -> dict[str, Any]:
    return {
        "payment_id": str(reservation.payment_id(payment.name)),
        "stage": payment.stage,
        "amount": payment.amount,
        "currency": reservation.facts.price.currency,
        "pay_url": pay_url,
        "status": payment.status,
    }


def order_view(
    order: MainOrder, granted: Sequence[Granted], trade_ins: Sequence[Reservation]
) -> dict[str, Any]:
    """A main order, what it entitles to, and what was made of that."""
    return {
        "order_id": order.id,
        "user": order.user,
        "state": order.state,
        "lines": [line._asdict() for line in order.lines],
        "paid_at": rfc3339(order.paid_at_ms) if order.user is not None else None,
        "entitlements": [
            {"campaign": one.campaign, "granted": one.granted, "used": one.used} for one in granted
        ],
        "trade_ins": [
            {
                "id": str(one.id),
                "campaign": one.id.campaign,
                "sku": one.sku,
                "quantity": one.quantity,
                "state": one.state,
            }
            for one in trade_ins
        ],
    }


def masked(user: str) -> str:
    """A user id as others see it."""
    return f"{user[0]}***{user[-1] if len(user) > 3 else ''}"
