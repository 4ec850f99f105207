"""For each request a shopper makes: what its answer is called, or why it must not be. Pure.

Every check returns the outcome, which is what the table at the end counts, or raises Unexpected, which
Locust counts as a failure. A refusal is an outcome; its name is the problem's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loadtests.answers import Answer, Unexpected

SHUT = frozenset({"ended", "not_started", "paused", "not_eligible"})
"""Nobody gets anything now, or not this shopper."""
HELD = "held"
REPLAYED = "replayed"
CONFIRMED = "confirmed"
DELIVERED = "delivered"
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
        found = answer.json()
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
            raise Unexpected(f"{answer.status}: not a reservation") from None


def check_page(answer: Answer, etag: str | None) -> str:
    """The campaign's page, asked for with the ETag that we have, if any."""
    if answer.status == 304 and etag is not None:
        return "unchanged"
    if answer.status != 200:
        return answer.refusal()
    if not answer.headers.get("etag"):
        raise Unexpected("200 without an ETag")
    offers_of(answer)
    return "changed"


def offers_of(answer: Answer) -> list[Offer]:
    """What is on a campaign's page."""
    page = answer.json()
    try:
        if not (isinstance(page["phase"], str) and isinstance(page["server_time"], str)):
            raise Unexpected("200: a campaign without phase or time")
        return [Offer(offer["sku"], _quota(page, offer)) for offer in page["offers"]]
    except (KeyError, TypeError):
        raise Unexpected("200: not a campaign") from None


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


def _replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"
