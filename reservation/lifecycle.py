"""The state machine: from a reservation and what happened, the one move that follows.

    held ──paid──▶ confirmed            paid late, and every limit still allows it ─▶ confirmed
     │ ├─deadline─▶ expired ───────────┤
     │ └─cancel───▶ cancelled ─────────┘ paid late, and some limit does not ─▶ refunded

Everything here is pure. A decision is made on one version of the reservation; the store applies it
to that version or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import orjson

from reservation.campaign import Campaign
from reservation.ids import Stage
from reservation.kernel import ALWAYS, Claim, Gate, Move
from reservation.kinds import KINDS, Kind
from reservation.outcomes import Outcome, Refusal
from reservation.record import (
    LIVE,
    Facts,
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
    Reservation,
    State,
)

ENDED = frozenset({State.EXPIRED, State.CANCELLED, State.FORFEITED})
"""States in which a reservation holds nothing and money may still arrive for it."""


REJECTED_MAX = 8


class Event(StrEnum):
    """What happened to a reservation."""

    RESERVED = "reserved"
    PAYMENT_REQUESTED = "payment_requested"
    PAYMENT_SUCCEEDED = "payment_succeeded"
    PAYMENT_FAILED = "payment_failed"
    PAYMENT_REJECTED = "payment_rejected"
    PAYMENT_RETURNED = "payment_returned"
    REFUND_SUCCEEDED = "refund_succeeded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FORFEITED = "forfeited"


class NoticeType(StrEnum):
    """What a payment provider tells us."""

    PAYMENT_SUCCEEDED = "payment.succeeded"
    PAYMENT_FAILED = "payment.failed"
    REFUND_SUCCEEDED = "refund.succeeded"


@dataclass(frozen=True, slots=True)
class Notice:
    """A payment provider's word on one payment. `amount` is in minor units of `currency`."""

    type: NoticeType
    stage: Stage
    amount: int
    currency: str
    provider_ref: str


@dataclass(frozen=True, slots=True)
class Steps:
    """Moves to try in order: the next is for when a claim of the one before does not hold."""

    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """It has happened already, or does not matter any more."""


Decision = Steps | Unchanged | Refusal


def kind_of(reservation: Reservation) -> Kind:
    return KINDS[reservation.facts.kind]


def _step(
    reservation: Reservation,
    event: Event,
    *,
    state: State | None = None,
    claims: tuple[Claim, ...] | None = None,
    facts: Facts | None = None,
    deadline_ms: int | None = None,
    gate: Gate = ALWAYS,
    revision: int = 0,
    data: dict[str, object] | None = None,
) -> Move:
    """A move of this reservation; what is not named stays as it is."""
    if claims is None:
        # Nothing more is asked for than is held already, so no cap can refuse it.
        claims = tuple(Claim(name, n, 0, Outcome.SOLD_OUT) for name, n in reservation.claims)
    return Move(
        id=reservation.id,
        version=reservation.version,
        user=reservation.user,
        sku=reservation.sku,
        quantity=reservation.quantity,
        state=state or reservation.state,
        claims=claims,
        event=event,
        facts=(facts or reservation.facts).pack(),
        data=orjson.dumps(data or {}),
        deadline_ms=reservation.deadline_ms if deadline_ms is None else deadline_ms,
        gate=gate,
        revision=revision,
    )


def cancel(reservation: Reservation) -> Decision:
    """The shopper gives it up."""
    if reservation.state is State.CANCELLED:
        return Unchanged()
    if not kind_of(reservation).cancellable(reservation.state):
        return Refusal(Outcome.WRONG_STATE, f"A reservation that is {reservation.state} cannot be cancelled.")
    return Steps((_step(reservation, Event.CANCELLED, state=State.CANCELLED, claims=(), deadline_ms=0),))


def lapse(reservation: Reservation, now_ms: int) -> Decision:
    """Its deadline has passed: what it held goes back on sale."""
    if reservation.state not in LIVE or not 0 < reservation.deadline_ms <= now_ms:
        return Unchanged()
    held = reservation.state is State.HELD
    event, state = (Event.EXPIRED, State.EXPIRED) if held else (Event.FORFEITED, State.FORFEITED)
    gate = Gate(opens_at_ms=reservation.deadline_ms, before=Outcome.WRONG_STATE)
    return Steps((_step(reservation, event, state=state, claims=(), deadline_ms=0, gate=gate),))


def request_payment(reservation: Reservation, stage: Stage, now_ms: int) -> Decision:
    """The shopper wants to pay. Asking again is harmless."""
    payment = reservation.facts.payments.get(stage)
    if payment is not None and payment.status is PaymentStatus.SUCCEEDED:
        return Unchanged()
    if reservation.state in (State.EXPIRED, State.FORFEITED):
        return Refusal(Outcome.PAYMENT_WINDOW_CLOSED, "The time to pay for this reservation is over.")
    due = kind_of(reservation).due(reservation)
    if due is None or due[0] is not stage:
        return Refusal(
            Outcome.WRONG_STATE, f"A reservation that is {reservation.state} has no {stage} payment due."
        )
    if payment is not None and payment.status is PaymentStatus.PENDING:
        if 0 < reservation.deadline_ms <= now_ms:
            return Refusal(Outcome.PAYMENT_WINDOW_CLOSED, "The time to pay for this reservation is over.")
        return Unchanged()
    gate = Gate(closes_at_ms=reservation.deadline_ms, after=Outcome.PAYMENT_WINDOW_CLOSED)
    facts = _with_payment(reservation, Payment(stage, due[1], PaymentStatus.PENDING, now_ms))
    return Steps((_step(reservation, Event.PAYMENT_REQUESTED, facts=facts, gate=gate),))


def take_notice(
    reservation: Reservation, campaign: Campaign | None, notice: Notice, now_ms: int
) -> Decision | None:
    """The provider's word has come: once, twice, late, or about something else.

    None when no such payment was ever asked for. `campaign` is what it is now: taking stock again
    is subject to today's limits.
    """
    payment = reservation.facts.payments.get(notice.stage)
    if payment is None:
        return None
    if notice.type is NoticeType.REFUND_SUCCEEDED:
        return _refund_succeeded(reservation, notice, now_ms)
    if mismatched(reservation, notice):
        return _rejected(reservation, notice)
    if notice.type is NoticeType.PAYMENT_FAILED:
        if payment.status is not PaymentStatus.PENDING:
            return Unchanged()
        failed = replace(payment, status=PaymentStatus.FAILED, at_ms=now_ms, provider_ref=notice.provider_ref)
        return Steps((_step(reservation, Event.PAYMENT_FAILED, facts=_with_payment(reservation, failed)),))
    if payment.status is PaymentStatus.SUCCEEDED:
        return Unchanged()
    return _payment_succeeded(reservation, campaign, payment, notice, now_ms)


def mismatched(reservation: Reservation, notice: Notice) -> bool:
    """Whether the provider speaks of another amount or currency than was asked for."""
    payment = reservation.facts.payments.get(notice.stage)
    asked = (payment.amount, reservation.facts.price.currency) if payment else None
    return (notice.amount, notice.currency) != asked


def _payment_succeeded(
    reservation: Reservation, campaign: Campaign | None, payment: Payment, notice: Notice, now_ms: int
) -> Decision:
    paid = replace(payment, status=PaymentStatus.SUCCEEDED, at_ms=now_ms, provider_ref=notice.provider_ref)
    facts = _with_payment(reservation, paid)
    data: dict[str, object] = {"stage": paid.stage, "amount": paid.amount, "late": reservation.state in ENDED}
    kind = kind_of(reservation)
    state = kind.paid(paid.stage)
    if reservation.state in LIVE:
        # Past its deadline and not yet swept, it still holds all that it claimed.
        return Steps(
            (_step(reservation, Event.PAYMENT_SUCCEEDED, state=state, facts=facts, deadline_ms=0, data=data),)
        )
    refund = Refund(paid.stage, paid.amount, RefundStatus.PENDING, "paid_after_end", now_ms)
    give_back = _step(
        reservation,
        Event.PAYMENT_RETURNED,
        state=State.REFUNDED,
        facts=replace(facts, refunds={**facts.refunds, paid.stage: refund}),
        data=data,
    )
    offer = campaign.offers.get(reservation.sku) if campaign else None
    if campaign is None or offer is None or reservation.state not in ENDED:
        return Steps((give_back,))
    take_again = _step(
        reservation,
        Event.PAYMENT_SUCCEEDED,
        state=state,
        claims=kind.claims(campaign, offer, reservation.quantity),
        facts=facts,
        revision=campaign.revision,
        data=data,
    )
    return Steps((take_again, give_back))


def _rejected(reservation: Reservation, notice: Notice) -> Decision:
    """A wrong amount or currency: recorded once, and nothing is confirmed."""
    mark = f"{notice.provider_ref}/{notice.amount}/{notice.currency}"
    known = reservation.facts.rejected
    if mark in known:
        return Unchanged()
    data: dict[str, object] = {
        "stage": notice.stage,
        "amount": notice.amount,
        "currency": notice.currency,
        "provider_ref": notice.provider_ref,
    }
    facts = replace(reservation.facts, rejected=(*known, mark)[-REJECTED_MAX:])
    return Steps((_step(reservation, Event.PAYMENT_REJECTED, facts=facts, data=data),))


def _refund_succeeded(reservation: Reservation, notice: Notice, now_ms: int) -> Decision | None:
    refund = reservation.facts.refunds.get(notice.stage)
    if refund is None:
        return None
    if mismatched(reservation, notice):
        return _rejected(reservation, notice)
    if refund.status is RefundStatus.SUCCEEDED:
        return Unchanged()
    done = replace(refund, status=RefundStatus.SUCCEEDED, at_ms=now_ms)
    facts = replace(reservation.facts, refunds={**reservation.facts.refunds, refund.stage: done})
    return Steps((_step(reservation, Event.REFUND_SUCCEEDED, facts=facts),))


def _with_payment(reservation: Reservation, payment: Payment) -> Facts:
    facts = reservation.facts
    return replace(facts, payments={**facts.payments, payment.stage: payment})
