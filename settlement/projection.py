"""From events to rows. Every event carries the whole reservation, so rows need no history:
the newest version wins, whatever the order in which events come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from reservation.campaign import instant_of
from reservation.envelope import Envelope
from reservation.ids import ReservationId
from reservation.main_order import MainOrder
from reservation.record import MadeOn, PaymentStatus, Record, Reservation
from reservation.steps import Event
from settlement.notifications import NOTIFIED, notification_body, notification_id

KEPT = ("claims", "deadline", "fingerprint", "facts")
"""Of a record, what the columns of an order do not say. The store is rebuilt from both."""
_NOT_AN_EVENT = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


class Malformed(Exception):
    """This is not an event."""


class Rows:
    """What a batch of events writes: by statement, its rows, each a JSON object.

    A statement takes its rows as one JSON array: neither we nor the driver write out each value, and
    what those who were made together have in common is sent once.
    """

    def __init__(self, envelopes: Iterable[Envelope]) -> None:
        self.campaigns: list[str] = []
        self.main_orders: list[str] = []
        self.reservations: list[str] = []
        self.payments: list[str] = []
        self.refunds: list[str] = []
        self.notifications: list[str] = []
        for envelope in envelopes:
            try:
                self._take(envelope)
            except _NOT_AN_EVENT as error:
                raise Malformed(f"{type(error).__name__}: {error}") from error

    def _take(self, envelope: Envelope) -> None:
        if envelope["type"] == "main_order_changed":
            self.main_orders.append(_json(_main_order(envelope)))
        elif "who" in envelope:
            self._take_reservations(_made(envelope), envelope)
        elif "record" in envelope:
            self._take_reservations(_moved(envelope), envelope)
        else:
            self.campaigns.append(_json(_campaign(envelope)))

    def _take_reservations(self, found: _Reservations, envelope: Envelope) -> None:
        row = _order(found, envelope)
        if envelope["type"] == Event.RESTATED:
            # What led here is lost. That something did is not: history has as many events as versions.
            self.reservations += (_json(row | {"version": one}) for one in range(1, found.like.version))
        self.reservations.append(_json(row))
        facts, notified = found.like.facts, envelope["type"] in NOTIFIED
        if not (facts.payments or facts.refunds or notified):
            return
        for one in found.each():
            self.payments += map(_json, _payments(one))
            self.refunds += map(_json, _refunds(one))
            if notified:
                self.notifications.append(_json(_notification(one, envelope)))


@dataclass(frozen=True, slots=True)
class _Reservations:
    """One, or many that differ in nothing but their ids and users."""

    like: Reservation
    """What they have in common is to be read off this one."""
    record: Record
    """Of this one."""
    ids: list[str]
    users: list[str]

    def each(self) -> Iterator[Reservation]:
        for name, user in zip(self.ids, self.users, strict=True):
            yield replace(self.like, id=_id(name), user=user)


def _made(envelope: Envelope) -> _Reservations:
    campaign, who = envelope["campaign"], envelope["who"]
    ids, users = [f"{campaign}.{digest}" for digest in who[::2]], who[1::2]
    if len(ids) != len(users) or not all(isinstance(user, str) for user in users):
        raise ValueError("not who made reservations")
    first, *_ = map(_id, ids)
    record = MadeOn(**envelope["terms"]).record(users[0], envelope["at"])
    return _Reservations(Reservation.of(first, record), record, ids, users)


def _moved(envelope: Envelope) -> _Reservations:
    record = Record(**envelope["record"])
    claims = tuple((name, n) for name, n in record.claims)
    record = record._replace(claims=claims)
    reservation = Reservation.of(_id(envelope["id"]), record)
    return _Reservations(reservation, record, [envelope["id"]], [reservation.user])


def _id(text: str) -> ReservationId:
    found = ReservationId.parse(text)
    if found is None:
        raise ValueError(f"not a reservation id: {text!r}")
    return found


def _json(row: dict[str, Any]) -> str:
    return orjson.dumps(row).decode()


def _campaign(envelope: Envelope) -> dict[str, Any]:
    return {
        "id": envelope["id"],
        "revision": envelope["revision"],
        "status": envelope["status"],
        "document": envelope["document"],
        "at": instant_of(envelope["at"]),
    }


def _main_order(envelope: Envelope) -> dict[str, Any]:
    order = MainOrder.unpack(envelope["id"], envelope["version"], orjson.dumps(envelope["body"]))
    return {
        "id": order.id,
        "user": order.user,
        "state": order.state,
        "lines": [line._asdict() for line in order.lines],
        "paid_at": instant_of(order.paid_at_ms) if order.user is not None else None,
        "version": order.version,
        "at": instant_of(envelope["at"]),
    }


def _notification(reservation: Reservation, envelope: Envelope) -> dict[str, Any]:
    return {
        "notification": notification_id(reservation),
        "id": str(reservation.id),
        "campaign": reservation.id.campaign,
        "user": reservation.user,
        "type": envelope["type"],
        "body": orjson.Fragment(notification_body(reservation, envelope)),
    }


def _order(found: _Reservations, envelope: Envelope) -> dict[str, Any]:
    like, facts = found.like, found.like.facts
    paid = [p.amount for p in facts.payments.values() if p.status is PaymentStatus.SUCCEEDED]
    data = envelope["data"]
    return {
        "id": found.ids,
        "user": found.users,
        "campaign": like.id.campaign,
        "kind": facts.kind,
        "sku": like.sku,
        "quantity": like.quantity,
        "state": like.state,
        "version": like.version,
        "currency": facts.price.currency,
        "total": facts.price.total,
        "paid": sum(paid),
        "refunded": sum(refund.amount for refund in facts.refunds.values()),
        "main_order": facts.order_id,
        "tier": data.get("tier"),
        "lines": like.lines,
        "price": facts.price.to_json(),
        "record": {name: getattr(found.record, name) for name in KEPT},
        "created_at": instant_of(like.created_at_ms),
        "updated_at": instant_of(like.updated_at_ms),
        "type": envelope["type"],
        # With the state it led to: an order's history reads without its rows.
        "data": {**data, "state": like.state, "quantity": like.quantity},
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
            "at": instant_of(payment.at_ms),
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
            "at": instant_of(refund.at_ms),
            "version": reservation.version,
        }
        for refund in reservation.facts.refunds.values()
    ]
