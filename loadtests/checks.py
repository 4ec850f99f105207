"""For each request a shopper makes: what its answer is called, or why it must not be. Pure.

Every check returns the outcome, which is what the table at the end counts, or raises Unexpected, which
Locust counts as a failure. A refusal is an outcome; its name is the problem's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loadtests.answers import Answer, Unexpected

SHUT = frozenset({"ended", "not_started", "paused", "not_eligible"})
"""Nobody gets anything now, or not this shopper, or not with this main order."""
HELD = "held"
REPLAYED = "replayed"
CONFIRMED = "confirmed"
DELIVERED = "delivered"
TAKEN_BACK = "taken_back"
SETTLED_STATES = frozenset({CONFIRMED, "deposit_paid", "refunded"})
"""What paying may lead to; `refunded` when the money came too late."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a shopper can want. `quota` is the most units that one shopper may have, None without limit."""

    sku: str
    quota: int | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a shopper needs to know of a reservation. `due` is the stage and amount to be paid next."""

    id: str
    sku: str
    quantity: int
    state: str
    due: tuple[str, int] | None

    @classmethod
    def of(cls, answer: Answer) -> Reservation:
        return cls.of_json(answer.json(), answer.status)

    @classmethod
    def of_json(cls, found: dict[str, Any], status: int) -> Reservation:
        try:
            due = found["due"]
            return cls(
                found["id"],
                found["sku"],
                found["quantity"],
                found["state"],
                (due["stage"], due["amount"]) if due else None,
            )
        except (KeyError, TypeError):
            raise Unexpected(f"{status}: not a reservation") from None


@dataclass(frozen=True, slots=True)
class Page:
    """What a shopper needs to know of a campaign's page. Times are seconds from when it was asked for."""

    phase: str
    offers: list[Offer]
    opens_in_s: float
    balance_opens_in_s: float | None
    """Of a presale."""
    order_line: dict[str, Any] | None
    """Of a trade-in: what a main order must have bought to qualify for all of it."""

    @classmethod
    def of(cls, answer: Answer) -> Page:
        page = answer.json()
        try:
            if not isinstance(page["phase"], str):
                raise Unexpected("200: a campaign without a phase")
            now = datetime.fromisoformat(page["server_time"])

            def seconds_to(instant: str) -> float:
                return (datetime.fromisoformat(instant) - now).total_seconds()

            balance = page.get("balance_opens_at")
            return cls(
                page["phase"],
                [Offer(offer["sku"], _quota(page, offer)) for offer in page["offers"]],
                seconds_to(page["opens_at"]),
                seconds_to(balance) if balance else None,
                _order_line(page) if "entitlement" in page else None,
            )
        except (KeyError, TypeError, ValueError):
            raise Unexpected("200: not a campaign") from None


def check_page(answer: Answer, etag: str | None) -> str:
    """The campaign's page, asked for with the ETag that we have, if any."""
    if answer.status == 304 and etag is not None:
        return "unchanged"
    if answer.status != 200:
        return answer.refusal()
    if not answer.headers.get("etag"):
        raise Unexpected("200 without an ETag")
    Page.of(answer)
    return "changed"


def _order_line(page: dict[str, Any]) -> dict[str, Any]:
    conditions = [page["entitlement"], *(o["requires"] for o in page["offers"] if o.get("requires"))]

    def first(designated: str) -> str:
        named = (one[designated][0] for one in conditions if one.get(designated))
        return str(next(named, "load-test"))

    spend = max(int(one.get("min_spend", 0)) for one in conditions)
    return {"sku": first("skus"), "category": first("categories"), "amount": max(1, spend)}


def _quota(page: dict[str, Any], offer: dict[str, Any]) -> int | None:
    if not (isinstance(offer["remaining"], int) and isinstance(offer["sold_out"], bool)):
        raise Unexpected("200: an offer that does not say what is left")
    quotas = [place["per_user"] for place in (page, offer) if "per_user" in place]
    return min(quotas, default=None)


def check_reserved(answer: Answer, sku: str, *, key_used_before: bool) -> str:
    """One unit. A key that was used before may have reserved already, though nobody heard of it."""
    if answer.status != 201:
        return answer.refusal(SHUT | {"quota_exceeded", "sold_out"})
    got = Reservation.of(answer)
    if (got.sku, got.quantity) != (sku, 1):
        raise Unexpected("201: not what was asked for")
    if answer.headers.get("location") != f"/v1/reservations/{got.id}":
        raise Unexpected("201: Location is not the reservation")
    if _replayed(answer):
        if not key_used_before:
            raise Unexpected("201: a replay of a key that is new")
        return REPLAYED
    if got.state != "held" or got.due is None:
        raise Unexpected("201: a new reservation that is not held, with something due")
    return HELD


def check_replay(answer: Answer, first: Reservation) -> str:
    """The key of a reservation that we were granted: whatever has happened since, it is that one."""
    if answer.status != 201:
        return answer.refusal()
    if Reservation.of(answer).id != first.id:
        raise Unexpected("201: the same key, and another reservation")
    if not _replayed(answer):
        raise Unexpected("201: a replay without Idempotent-Replayed")
    return REPLAYED


def check_greedy(answer: Answer) -> str:
    """More than the quota, which no state of the sale allows."""
    if answer.status == 201:
        raise Unexpected("201: more than one user may have")
    # sold_out would be wrong: the quota is looked at first.
    return answer.refusal(SHUT | {"quota_exceeded"})


def check_payment(answer: Answer, reservation: Reservation) -> str:
    """The wish to pay what is due."""
    if answer.status != 200:
        return answer.refusal({"wrong_state", "payment_window_closed"})
    payment = answer.json()
    if (payment.get("stage"), payment.get("amount")) != reservation.due:
        raise Unexpected("200: not the payment that is due")
    if not isinstance(payment.get("payment_id"), str):
        raise Unexpected("200: a payment without an id")
    return "asked"


def check_sandbox(answer: Answer) -> str:
    """The stand-in provider: whether it could tell the service of the payment."""
    if answer.status == 404 and answer.json().get("code") == "not_found":
        return "no_sandbox"  # this deployment has none, so nobody pays
    if answer.status != 200:
        return answer.refusal()
    status = answer.json().get("webhook_status")
    if status == 200:
        return DELIVERED
    if status == 503:
        return "webhook_busy"  # a provider tries again later, and so do we
    raise Unexpected(f"200: the webhook was answered {status}")


def check_paid(answer: Answer, reservation: Reservation) -> str:
    """Our reservation, after the service has taken the provider's word that it is paid."""
    if answer.status != 200:
        return answer.refusal()
    now = Reservation.of(answer)
    if now.id != reservation.id:
        raise Unexpected("200: another reservation")
    if now.state not in SETTLED_STATES:
        raise Unexpected(f"200: paid, and {now.state}")
    return now.state


def check_given_up(answer: Answer, reservation: Reservation) -> str:
    """Cancelling. It may have expired before."""
    if answer.status != 200:
        return answer.refusal({"wrong_state"})
    now = Reservation.of(answer)
    if (now.id, now.state) != (reservation.id, "cancelled"):
        raise Unexpected("200: not cancelled")
    return "cancelled"


def check_amended(answer: Answer, reservation: Reservation, quantity: int) -> str:
    """Another quantity. Where that is more, units and quota must allow it."""
    if answer.status != 200:
        return answer.refusal(SHUT | {"wrong_state", "quota_exceeded", "sold_out", "payment_window_closed"})
    now = Reservation.of(answer)
    if (now.id, now.quantity) != (reservation.id, quantity):
        raise Unexpected("200: not amended")
    return "amended"


def check_joined(answer: Answer) -> str:
    """A place in the line for one unit. Who could have it at once does not get one."""
    if answer.status != 201:
        return answer.refusal(SHUT | {"wrong_state", "quota_exceeded"})
    place = answer.json()
    if place.get("state") != "waiting" or not isinstance(place.get("position"), int):
        raise Unexpected("201: no place in a line")
    return "waiting"


def check_left(answer: Answer) -> str:
    if answer.status != 200:
        return answer.refusal()
    if answer.json().get("state") != "left":
        raise Unexpected("200: still in line")
    return "left"


def held_of(answer: Answer) -> Reservation | None:
    """The reservation of a user who had none, once the line has come to them."""
    try:
        found = [one for one in answer.json()["reservations"] if one["state"] == "held"]
    except (KeyError, TypeError):
        raise Unexpected("200: not a list of reservations") from None
    return Reservation.of_json(found[0], answer.status) if found else None


def check_look(answer: Answer) -> str:
    """One's own reservations, to see whether one was served."""
    if answer.status != 200:
        return answer.refusal()
    return "not_yet" if held_of(answer) is None else "served"


def check_order(answer: Answer, order_id: str) -> str:
    """A main order, reported by the merchant's systems."""
    if answer.status not in (200, 201):
        return answer.refusal()
    order = answer.json()
    if (order.get("order_id"), order.get("state")) != (order_id, "paid"):
        raise Unexpected(f"{answer.status}: not the order that was reported")
    return "reported"


def check_order_cancelled(answer: Answer, order_id: str, *, paid: bool) -> str:
    """A main order taken back, and with it a trade-in that was `paid`."""
    if answer.status != 200:
        return answer.refusal()
    order = answer.json()
    if (order.get("order_id"), order.get("state")) != (order_id, "cancelled"):
        raise Unexpected("200: not cancelled")
    return TAKEN_BACK if paid else "cancelled"


def check_paid_with_order(answer: Answer, reservation: Reservation) -> str:
    """A trade-in that was paid with its main order. It may have expired before."""
    if answer.status != 200:
        return answer.refusal({"wrong_state", "payment_window_closed"})
    now = Reservation.of(answer)
    if now.id != reservation.id or now.state not in SETTLED_STATES:
        raise Unexpected(f"200: paid, and {now.state}")
    return now.state


def check_bot(answer: Answer, granted: int, quota: int | None) -> str:
    """One of many new keys of one user, who has been `granted` so many units already."""
    if answer.status != 201:
        return answer.refusal(SHUT | {"quota_exceeded", "sold_out"})
    got = Reservation.of(answer)
    if quota is not None and granted + got.quantity > quota:
        raise Unexpected("201: many keys got one user more than the quota")
    return HELD


def check_nonsense(answer: Answer, code: str) -> str:
    """What cannot be. Even so the service may be too busy to say so."""
    return answer.refusal({code})


def _replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"
