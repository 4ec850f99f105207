"""Payments: asked for, made, late, refused, refunded. Pure, as all decisions are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from reservation.campaign import Campaign
from reservation.ids import Stage, numbered
from reservation.kernel import ALWAYS, Claim, Gate, Move
from reservation.outcomes import Outcome, Refusal
from reservation.record import (
    Facts,
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
    Reservation,
    State,
)
from reservation.steps import (
    Decision,
    Due,
    Event,
    Steps,
    Unchanged,
    agenda,
    carried,
    due,
    due_by_ms,
    kind_of,
    step,
)

ENDED = frozenset({State.EXPIRED, State.CANCELLED, State.FORFEITED})
"""States in which a reservation holds nothing and money may still arrive for it."""
REJECTED_MAX = 8
PAYMENTS_MAX = 20
"""Of one stage: each change of quantity may need another."""
CHARGED_MAX = 2**63 - 1
"""All payments of one reservation together, in minor units: what the book can add up."""


class NoticeType(StrEnum):
    """What a payment provider tells us."""

    PAYMENT_SUCCEEDED = "payment.succeeded"
    PAYMENT_FAILED = "payment.failed"
    REFUND_SUCCEEDED = "refund.succeeded"


@dataclass(frozen=True, slots=True)
class Notice:
    """A payment provider's word on one payment. `amount` is in minor units of `currency`."""

    type: NoticeType
    payment: str
    """The payment's name."""
    amount: int
    currency: str
    provider_ref: str
    refund: str | None = None
    """The refund's name, where the provider says it."""


def payment_of(reservation: Reservation, stage: Stage) -> Payment | None:
    """The payment of a stage that is under way, or else the last one."""
    owed = due(reservation)
    current = _asked(reservation, owed) if owed and owed.stage is stage else None
    payments = [p for p in reservation.facts.payments.values() if p.stage is stage]
    return current or (payments[-1] if payments else None)


def _asked(reservation: Reservation, owed: Due) -> Payment | None:
    """The payment by which what is owed has been asked for and not been paid."""
    payments = reservation.facts.payments.values()
    open_ones = (p for p in payments if p.status is not PaymentStatus.SUCCEEDED)
    return next((p for p in open_ones if owed == (p.stage, p.amount)), None)


def request_payment(
    reservation: Reservation, campaign: Campaign | None, stage: Stage, now_ms: int
) -> Decision:
    """The shopper wants to pay. Asking again is harmless."""
    owed = due(reservation)
    payment = payment_of(reservation, stage)
    if owed is None or owed.stage is not stage:
        if payment is not None and payment.status is PaymentStatus.SUCCEEDED:
            return Unchanged()
        if reservation.state in (State.EXPIRED, State.FORFEITED):
            return Refusal(Outcome.PAYMENT_WINDOW_CLOSED, "The time to pay for this reservation is over.")
        return Refusal(
            Outcome.WRONG_STATE, f"A reservation that is {reservation.state} has no {stage} payment due."
        )
    gate = Gate(
        closes_at_ms=due_by_ms(reservation, campaign),
        before=Outcome.PAYMENT_WINDOW_CLOSED,
        after=Outcome.PAYMENT_WINDOW_CLOSED,
    )
    if stage is Stage.BALANCE and campaign and campaign.balance:
        gate = replace(gate, opens_at_ms=campaign.balance.opens_at_ms)
    asked = _asked(reservation, owed)
    in_time = gate.opens_at_ms <= now_ms < (gate.closes_at_ms or now_ms + 1)
    if asked is not None and asked.status is PaymentStatus.PENDING and in_time:
        return Unchanged()
    count = sum(p.stage is stage for p in reservation.facts.payments.values())
    charged = sum(payment.amount for payment in reservation.facts.payments.values())
    if asked is None and (count >= PAYMENTS_MAX or charged + owed.amount > CHARGED_MAX):
        return Refusal(Outcome.WRONG_STATE, f"There were {count} {stage} payments already.")
    name = asked.name if asked else numbered(stage, count + 1)
    facts = reservation.facts.with_payment(Payment(name, owed.amount, PaymentStatus.PENDING, now_ms))
    move = step(reservation, Event.PAYMENT_REQUESTED, facts=facts)
    by_window = campaign.revision if campaign and campaign.balance else 0
    return Steps((replace(move, gate=gate, revision=by_window),))


def pay_with_order(reservation: Reservation, notice: Notice, now_ms: int) -> Decision:
    """A service says that the main order's payment has paid for this as well."""
    owed = due(reservation)
    if owed is None:
        payment = payment_of(reservation, Stage.FULL)
        if payment is not None and payment.provider_ref == notice.provider_ref:
            return Unchanged()
        return Refusal(Outcome.WRONG_STATE, f"A reservation that is {reservation.state} has nothing due.")
    # Another payment than the shopper may have asked for: should that one be made too, it goes back.
    count = sum(p.stage is owed.stage for p in reservation.facts.payments.values())
    payment = Payment(numbered(owed.stage, count + 1), owed.amount, PaymentStatus.PENDING, now_ms)
    return _payment_succeeded(reservation, None, payment, notice, now_ms)


def take_notice(
    reservation: Reservation, campaign: Campaign | None, notice: Notice, now_ms: int
) -> Decision | None:
    """The provider's word has come: once, twice, late, or about something else.

    None when no such payment was ever asked for. `campaign` is what it is now: taking stock again
    is subject to today's limits.
    """
    payment = reservation.facts.payments.get(notice.payment)
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
        facts = reservation.facts.with_payment(failed)
        return Steps((step(reservation, Event.PAYMENT_FAILED, facts=facts),))
    if payment.status is PaymentStatus.SUCCEEDED:
        return Unchanged()
    return _payment_succeeded(reservation, campaign, payment, notice, now_ms)


def mismatched(reservation: Reservation, notice: Notice) -> bool:
    """Whether the provider speaks of another amount or currency than was asked for."""
    facts = reservation.facts
    payment = facts.payments.get(notice.payment)
    if payment is None or notice.currency != facts.price.currency:
        return True
    if notice.type is NoticeType.REFUND_SUCCEEDED:
        return not any(refund.amount == notice.amount for refund in _refunds_meant(facts, notice))
    return notice.amount != payment.amount


def _payment_succeeded(
    reservation: Reservation, campaign: Campaign | None, payment: Payment, notice: Notice, now_ms: int
) -> Decision:
    paid = replace(payment, status=PaymentStatus.SUCCEEDED, at_ms=now_ms, provider_ref=notice.provider_ref)
    facts = reservation.facts.with_payment(paid)
    stages = kind_of(reservation).stages
    state = State.CONFIRMED if paid.stage is stages[-1] else State.DEPOSIT_PAID
    late = reservation.state in ENDED
    is_due = due(reservation) == (paid.stage, paid.amount)
    data: dict[str, object] = {"stage": paid.stage, "amount": paid.amount, "late": late}
    reason = "paid_after_end" if late or is_due else "superseded"
    give_back = step(
        reservation,
        Event.PAYMENT_RETURNED,
        state=State.REFUNDED if late or reservation.state is State.REFUNDED else reservation.state,
        facts=facts.with_refund(paid, paid.amount, reason, now_ms),
        data=data,
    )
    gate = ALWAYS
    if campaign and campaign.balance and state is State.DEPOSIT_PAID:
        # A deposit for which no balance can be paid any more would be lost at once.
        gate = Gate(closes_at_ms=campaign.balance.closes_at_ms, after=Outcome.PAYMENT_WINDOW_CLOSED)
    if is_due:
        # Past its deadline and not yet swept, it still holds all that it claimed.
        held = carried(reservation)
        taken = _paid(reservation, campaign, state, held, replace(facts, before=None), data)
        return Steps((replace(taken, gate=gate), give_back))
    offer = campaign.offers.get(reservation.sku) if campaign else None
    if campaign is None or offer is None or not late or not _completes(reservation, paid):
        return Steps((give_back,))
    claims = kind_of(reservation).claims(campaign, offer, reservation.quantity, facts.order_id)
    take_again = _paid(reservation, campaign, state, claims, replace(facts, kept=0), data)
    return Steps((replace(take_again, revision=campaign.revision, gate=gate), give_back))


def _completes(reservation: Reservation, paid: Payment) -> bool:
    """Whether a late payment, with what was kept, is all that an ended reservation should have paid."""
    price, kept = reservation.facts.price, reservation.facts.kept
    first = kind_of(reservation).stages[0]
    if reservation.state is State.FORFEITED:
        return paid.stage is Stage.BALANCE and (paid.amount, kept) == (price.balance, price.deposit)
    return paid.stage is first and (paid.amount, kept) == (price.amount(first), 0)


def _paid(
    reservation: Reservation,
    campaign: Campaign | None,
    state: State,
    claims: tuple[Claim, ...],
    facts: Facts,
    data: dict[str, object],
) -> Move:
    """A payment leads to its state, with the gifts and appointments that come with a deposit."""
    offer = campaign.offers.get(reservation.sku) if campaign else None
    if state is not State.DEPOSIT_PAID or campaign is None:
        return step(
            reservation,
            Event.PAYMENT_SUCCEEDED,
            state=state,
            claims=claims,
            facts=facts,
            deadline_ms=0,
            data=data,
        )
    has = {claim.counter for claim in claims}
    gifts = kind_of(reservation).gifts(offer) if offer and reservation.state is not State.DEPOSIT_PAID else ()
    move = step(
        reservation,
        Event.PAYMENT_SUCCEEDED,
        state=state,
        claims=claims + tuple(gift for gift in gifts if gift.counter not in has),
        facts=facts,
        deadline_ms=agenda(campaign, facts)[0].at_ms,
        data=data,
    )
    return replace(move, revision=campaign.revision)


def _rejected(reservation: Reservation, notice: Notice) -> Decision:
    """A wrong amount or currency: recorded once, and nothing is confirmed."""
    mark = f"{notice.provider_ref}/{notice.amount}/{notice.currency}"
    known = reservation.facts.rejected
    if mark in known:
        return Unchanged()
    data: dict[str, object] = {
        "payment": notice.payment,
        "amount": notice.amount,
        "currency": notice.currency,
        "provider_ref": notice.provider_ref,
    }
    facts = replace(reservation.facts, rejected=(*known, mark)[-REJECTED_MAX:])
    return Steps((step(reservation, Event.PAYMENT_REJECTED, facts=facts, data=data),))


def _refunds_meant(facts: Facts, notice: Notice) -> list[Refund]:
    """The refunds that a notice may be about: the one that it names, or those of its payment."""
    return [
        refund
        for refund in facts.refunds.values()
        if refund.payment == notice.payment and notice.refund in (None, refund.name)
    ]


def _refund_succeeded(reservation: Reservation, notice: Notice, now_ms: int) -> Decision | None:
    meant = _refunds_meant(reservation.facts, notice)
    if not meant:
        return None
    if mismatched(reservation, notice):
        return _rejected(reservation, notice)
    of_amount = [refund for refund in meant if refund.amount == notice.amount]
    pending = [refund for refund in of_amount if refund.status is RefundStatus.PENDING]
    if not pending:
        return Unchanged()
    done = replace(pending[0], status=RefundStatus.SUCCEEDED, at_ms=now_ms)
    facts = replace(reservation.facts, refunds={**reservation.facts.refunds, done.name: done})
    return Steps((step(reservation, Event.REFUND_SUCCEEDED, facts=facts),))
