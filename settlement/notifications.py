"""What the merchant is told of: from an event to the body that is sent."""

from __future__ import annotations

from typing import Any

import orjson

from reservation.campaign import rfc3339
from reservation.envelope import Envelope
from reservation.ids import Stage
from reservation.kinds import KINDS
from reservation.record import Reservation
from reservation.steps import Event, due

NOTIFIED = frozenset({Event.OFFERED, Event.BALANCE_OPENED, Event.BALANCE_REMINDER, Event.FORFEITED})
"""The events that the merchant is told of."""
BODY_BYTES_MAX = 20_000
"""What Standard Webhooks advises. An event's details that would go beyond it are left out."""


def notification_id(reservation: Reservation) -> str:
    """An event is a version of its reservation, so a notification needs no other name."""
    return f"{reservation.id}.{reservation.version}"


def notification_body(reservation: Reservation, envelope: Envelope) -> bytes:
    """The event as JSON for the merchant's systems: {type, timestamp, data}."""
    details = dict(envelope["data"])
    due_by = details.pop("due_by", None)
    data = {
        "reservation_id": str(reservation.id),
        "campaign": reservation.id.campaign,
        "kind": reservation.facts.kind,
        "sku": reservation.sku,
        "user": reservation.user,
        "quantity": reservation.quantity,
        "state": reservation.state,
        "version": reservation.version,
        "due": _due(reservation, due_by),
        "details": details,
    }
    body = {
        "type": f"reservation.{envelope['type']}",
        "timestamp": rfc3339(reservation.updated_at_ms),
        "data": data,
    }
    packed = orjson.dumps(body)
    if len(packed) > BODY_BYTES_MAX:
        data["details"] = {}
        packed = orjson.dumps(body)
    return packed


def _due(reservation: Reservation, due_by: int | None) -> dict[str, Any] | None:
    """What is to be paid, and by when; `due_by` is when the event says."""
    if reservation.facts.kind not in KINDS:
        return None  # newer than this process, and the order has to go into the book all the same
    owed = due(reservation)
    if owed is None:
        return None
    if due_by is None and owed.stage is not Stage.BALANCE:
        due_by = reservation.deadline_ms  # while the balance is due, that is the next reminder
    return {
        "stage": owed.stage,
        "amount": owed.amount,
        "currency": reservation.facts.price.currency,
        "by": rfc3339(due_by) if due_by else None,
    }
