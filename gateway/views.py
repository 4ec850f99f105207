"""How campaigns, reservations and payments look on the wire."""

from __future__ import annotations

from typing import Any

from reservation.campaign import Campaign, rfc3339, stock_counter
from reservation.ids import Stage
from reservation.kernel import Standing
from reservation.kinds import KINDS
from reservation.record import Reservation


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


def reservation_view(reservation: Reservation) -> dict[str, Any]:
    price = reservation.facts.price
    due = KINDS[reservation.facts.kind].due(reservation)
    return {
        "id": str(reservation.id),
        "campaign": reservation.id.campaign,
        "kind": reservation.facts.kind,
        "sku": reservation.sku,
        "quantity": reservation.quantity,
        "user": reservation.user,
        "state": reservation.state,
        "version": reservation.version,
        "due": due
        and {
            "stage": due[0],
            "amount": due[1],
            "currency": price.currency,
            "by": rfc3339(reservation.deadline_ms),
        },
        "price": price.to_json(),
        "created_at": rfc3339(reservation.created_at_ms),
        "updated_at": rfc3339(reservation.updated_at_ms),
    }


def payment_view(reservation: Reservation, stage: Stage, pay_url: str | None) -> dict[str, Any]:
    payment = reservation.facts.payments[stage]
    return {
        "payment_id": str(reservation.payment_id(stage)),
        "stage": stage,
        "amount": payment.amount,
        "currency": reservation.facts.price.currency,
        "pay_url": pay_url,
        "status": payment.status,
    }
