"""From events to rows. Every event carries the whole reservation, so rows need no history:
the newest version wins, whatever the order in which events come."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from reservation.ids import ReservationId
from reservation.main_order import MainOrder
from reservation.outbox import Envelope
from reservation.record import PaymentStatus, Record, Reservation
from settlement.notifications import NOTIFIED, notification_body, notification_id

Columns = dict[str, list[Any]]
"""Parameters of a statement that unnests them: column name -> one value a row."""


class Malformed(Exception):
    """This is not an event."""


class Rows:
    """The rows that a batch of events makes, each statement's columns side by side."""

    def __init__(self, envelopes: Iterable[Envelope]) -> None:
        self.campaigns: list[dict[str, Any]] = []
        self.main_orders: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.orders: list[dict[str, Any]] = []
        self.payments: list[dict[str, Any]] = []
        self.refunds: list[dict[str, Any]] = []
        self.notifications: list[dict[str, Any]] = []
        newest: dict[str, tuple[Reservation, Envelope]] = {}
        tiers: dict[str, str] = {}
        for envelope in envelopes:
            try:
                if envelope["type"] == "main_order_changed":
                    self.main_orders.append(_main_order(envelope))
                    continue
                if "record" not in envelope:
                    self.campaigns.append(_campaign(envelope))
                    continue
                reservation = _reservation(envelope)
                self.events.append(_event(reservation, envelope))
                if envelope["type"] in NOTIFIED:
                    self.notifications.append(_notification(reservation, envelope))
                tier = envelope["data"].get("tier")
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Malformed(f"{type(error).__name__}: {error}") from error
            name = envelope["id"]
            if tier is not None:
                tiers[name] = tier
            if name not in newest or newest[name][0].version < reservation.version:
                newest[name] = (reservation, envelope)
        # In the order of their ids, so that two workers never wait for each other's rows in a circle.
        for name in sorted(newest):
            reservation, _ = newest[name]
            self.orders.append(_order(reservation, tiers.get(name)))
            self.payments += _payments(reservation)
            self.refunds += _refunds(reservation)
        self.events.sort(key=lambda row: (row["id"], row["version"]))
        self.notifications.sort(key=lambda row: row["notification"])


def columns(rows: list[dict[str, Any]]) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _reservation(envelope: Envelope) -> Reservation:
    reservation_id = ReservationId.parse(envelope["id"])
    if reservation_id is None:
        raise ValueError(f"not a reservation id: {envelope['id']!r}")
    record = Record(**envelope["record"])
    claims = tuple((name, n) for name, n in record.claims)
    return Reservation.of(reservation_id, record._replace(claims=claims))


def _campaign(envelope: Envelope) -> dict[str, Any]:
    return {
        "id": envelope["id"],
        "revision": envelope["revision"],
        "status": envelope["status"],
        "document": orjson.dumps(envelope["document"]).decode(),
        "at": _at(envelope["at"]),
    }


def _main_order(envelope: Envelope) -> dict[str, Any]:
    order = MainOrder.unpack(envelope["id"], envelope["version"], orjson.dumps(envelope["body"]))
    return {
        "id": order.id,
        "user": order.user,
        "state": order.state,
        "lines": orjson.dumps([line._asdict() for line in order.lines]).decode(),
        "paid_at": _at(order.paid_at_ms) if order.user is not None else None,
        "version": order.version,
        "at": _at(envelope["at"]),
    }


def _event(reservation: Reservation, envelope: Envelope) -> dict[str, Any]:
    # With the state it led to: an order's history reads without its rows.
    data = {**envelope["data"], "state": reservation.state, "quantity": reservation.quantity}
    return {
        "id": str(reservation.id),
        "version": reservation.version,
        "type": envelope["type"],
        "data": orjson.dumps(data).decode(),
        "at": _at(reservation.updated_at_ms),
    }


def _notification(reservation: Reservation, envelope: Envelope) -> dict[str, Any]:
    return {
        "notification": notification_id(reservation),
        "id": str(reservation.id),
        "campaign": reservation.id.campaign,
        "user": reservation.user,
        "type": envelope["type"],
        "body": notification_body(reservation, envelope).decode(),
    }


def _order(reservation: Reservation, tier: str | None) -> dict[str, Any]:
    facts = reservation.facts
    paid = [p.amount for p in facts.payments.values() if p.status is PaymentStatus.SUCCEEDED]
    return {
        "id": str(reservation.id),
        "campaign": reservation.id.campaign,
        "kind": facts.kind,
        "sku": reservation.sku,
        "user": reservation.user,
        "quantity": reservation.quantity,
        "state": reservation.state,
        "version": reservation.version,
        "currency": facts.price.currency,
        "total": facts.price.total,
        "paid": sum(paid),
        "refunded": sum(refund.amount for refund in facts.refunds.values()),
        "main_order": facts.order_id,
        "tier": tier,
        "lines": orjson.dumps(reservation.lines).decode(),
        "price": orjson.dumps(facts.price.to_json()).decode(),
        "created_at": _at(reservation.created_at_ms),
        "updated_at": _at(reservation.updated_at_ms),
    }


def _payments(reservation: Reservation) -> list[dict[str, Any]]:
    return [
        {
            "payment": str(reservation.payment_id(payment.name)),
            "id": str(reservation.id),
            "stage": payment.stage,
            "amount": payment.amount,
            "currency": reservation.facts.price.currency,
            "status": payment.status,
            "provider_ref": payment.provider_ref,
            "at": _at(payment.at_ms),
            "version": reservation.version,
        }
        for payment in reservation.facts.payments.values()
    ]


def _refunds(reservation: Reservation) -> list[dict[str, Any]]:
    return [
        {
            "refund": reservation.refund_id(refund),
            "payment": str(reservation.payment_id(refund.payment)),
            "id": str(reservation.id),
            "amount": refund.amount,
            "currency": reservation.facts.price.currency,
            "status": refund.status,
            "reason": refund.reason,
            "at": _at(refund.at_ms),
            "version": reservation.version,
        }
        for refund in reservation.facts.refunds.values()
    ]
