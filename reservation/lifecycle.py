"""The state machine: from a reservation and what happened, the one move that follows.

    held ──paid──▶ confirmed                               paid late, and every limit still
     │ ├─deposit─▶ deposit_paid ──balance──▶ confirmed      allows it ─▶ where payment leads
     │ │               ├─deadline─▶ forfeited ────────────┤
     │ ├─deadline──────┼──────────▶ expired ──────────────┤
     │ └─cancel────────┴──────────▶ cancelled ────────────┘ paid late, and some limit
                                                            does not ─▶ refunded

Everything here is pure. A decision is made on one version of the reservation; the store applies it
to that version or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import orjson

from reservation.campaign import Campaign, stock_counter
from reservation.ids import Stage, numbered
from reservation.kernel import ALWAYS, RANKED, UNCAPPED, Claim, Gate, Move, optional
from reservation.kinds import KINDS
from reservation.kinds.kind import Kind
from reservation.outcomes import Outcome, Refusal
from reservation.record import (
    GIFT,
    LIVE,
    SOLD,
    Agreed,
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
PAYMENTS_MAX = 20
"""Of one stage: each change of quantity may need another."""
CHARGED_MAX = 2**63 - 1
"""All payments of one reservation together, in minor units: what the book can add up."""
REFUNDS_MAX = 100
"""Beyond so many a shopper may no longer take less, and less again."""
OPENED = "opened"
"""The reminder that the balance window has opened; the others are named after their lead in ms."""


class Event(StrEnum):
    """What happened to a reservation."""

    RESERVED = "reserved"
    OFFERED = "offered"  # a place in the waitlist became a hold
    AMENDED = "amended"
    AMENDMENT_LAPSED = "amendment_lapsed"
    PAYMENT_REQUESTED = "payment_requested"
    PAYMENT_SUCCEEDED = "payment_succeeded"
    PAYMENT_FAILED = "payment_failed"
    PAYMENT_REJECTED = "payment_rejected"
    PAYMENT_RETURNED = "payment_returned"
    REFUND_SUCCEEDED = "refund_succeeded"
    BALANCE_OPENED = "balance_opened"
    BALANCE_REMINDER = "balance_reminder"
    RESCHEDULED = "rescheduled"
    CONFIRMED = "confirmed"  # with nothing left to pay
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FORFEITED = "forfeited"
    TAKEN_BACK = "taken_back"  # its main order no longer entitles to it


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


@dataclass(frozen=True, slots=True)
class Steps:
    """Moves to try in order: the next is for when a claim of the one before does not hold."""

    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """It has happened already, or does not matter any more."""


Decision = Steps | Unchanged | Refusal


class Due(NamedTuple):
    """What a reservation waits to be paid, in minor units."""

    stage: Stage
    amount: int


class Appointment(NamedTuple):
    """When a reservation with its deposit paid is looked at again, and for what."""

    at_ms: int
    what: str


def kind_of(reservation: Reservation) -> Kind:
    return KINDS[reservation.facts.kind]


def due(reservation: Reservation) -> Due | None:
    """The payment that a reservation waits for."""
    facts = reservation.facts
    if reservation.state is State.HELD:
        stage = kind_of(reservation).stages[0]
        return Due(stage, facts.price.amount(stage))
    if reservation.state is not State.DEPOSIT_PAID:
        return None
    short = facts.price.deposit - facts.standing_deposit
    if short > 0:
        return Due(Stage.DEPOSIT, short)
    return Due(Stage.BALANCE, facts.price.balance) if facts.price.balance else None


def due_by_ms(reservation: Reservation, campaign: Campaign | None) -> int:
    """When what is due must have been paid."""
    owed = due(reservation)
    if owed is None or campaign is None or campaign.balance is None:
        return reservation.deadline_ms
    closes_at_ms = campaign.balance.closes_at_ms
    return closes_at_ms if owed.stage is Stage.BALANCE else min(reservation.deadline_ms, closes_at_ms)


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


def agenda(campaign: Campaign, facts: Facts) -> list[Appointment]:
    """What is still to happen to a reservation whose deposit is paid, soonest first."""
    window = campaign.balance
    if window is None:
        return []
    lead_times = [Appointment(window.closes_at_ms - lead, str(lead)) for lead in window.reminders_ms]
    reminders = [
        Appointment(window.opens_at_ms, OPENED),
        *(one for one in lead_times if one.at_ms > window.opens_at_ms),
    ]
    left = [one for one in reminders if one.what not in facts.reminded]
    return sorted([*left, Appointment(window.closes_at_ms, "")])


def cancel(reservation: Reservation, campaign: Campaign | None, now_ms: int) -> Decision:
    """The shopper gives it up."""
    if reservation.state is State.CANCELLED:
        return Unchanged()
    if reservation.state is State.HELD:
        return Steps((_end(reservation, Event.CANCELLED, State.CANCELLED),))
    if reservation.state is not State.DEPOSIT_PAID or not kind_of(reservation).amendable or campaign is None:
        return Refusal(Outcome.WRONG_STATE, f"A reservation that is {reservation.state} cannot be cancelled.")
    facts = reservation.facts
    facts = _give_back(facts, campaign, facts.standing_deposit, "cancelled", now_ms)
    move = _end(reservation, Event.CANCELLED, State.CANCELLED, facts=facts)
    gate = Gate(closes_at_ms=campaign.closes_at_ms, after=Outcome.WRONG_STATE)
    return Steps((replace(move, gate=gate, revision=campaign.revision),))


def take_back(reservation: Reservation, reason: str, now_ms: int) -> Decision:
    """What entitled to it is gone: it is cancelled, or its money given back."""
    if reservation.state not in LIVE | SOLD:
        return Unchanged()
    facts = reservation.facts
    state = State.REFUNDED if facts.received else State.CANCELLED
    facts = facts.with_refunds(set(Stage), facts.received, reason, now_ms)
    return Steps((_end(reservation, Event.TAKEN_BACK, state, facts=facts, data={"reason": reason}),))


def amend(reservation: Reservation, campaign: Campaign | None, quantity: int, now_ms: int) -> Decision:
    """The shopper wants more of it, or less. A difference in deposit is charged or given back."""
    if quantity == reservation.quantity:
        return Unchanged()
    kind = kind_of(reservation)
    if reservation.state not in LIVE or not kind.amendable or campaign is None:
        return Refusal(Outcome.WRONG_STATE, f"A reservation that is {reservation.state} cannot be changed.")
    offer = campaign.offers.get(reservation.sku)
    if offer is None:
        return Refusal(Outcome.OFFER_NOT_FOUND, "The campaign has no such offer any more.")
    facts = replace(reservation.facts, price=kind.price(campaign, offer, quantity))
    deadline_ms, hold_ms = reservation.deadline_ms, 0
    if reservation.state is State.DEPOSIT_PAID:
        paid = facts.standing_deposit
        if facts.price.deposit > paid:
            agreed = Agreed(reservation.quantity, reservation.facts.price)
            facts = replace(facts, before=facts.before or agreed)
            hold_ms = 0 if reservation.facts.before else campaign.hold_ms  # changing again gains no time
        else:
            too_much = paid - facts.price.deposit
            if too_much and len(facts.refunds) >= REFUNDS_MAX:
                return Refusal(Outcome.WRONG_STATE, f"There were {len(facts.refunds)} refunds already.")
            facts = _give_back(replace(facts, before=None), campaign, too_much, "amended", now_ms)
            deadline_ms = agenda(campaign, facts)[0].at_ms
    move = _step(
        reservation,
        Event.AMENDED,
        quantity=quantity,
        claims=kind.claims(campaign, offer, quantity, facts.order_id) + _carried(reservation, (GIFT,)),
        facts=facts,
        deadline_ms=deadline_ms,
        hold_ms=hold_ms,
        data={"from": reservation.quantity},
    )
    shut = Outcome.WRONG_STATE
    gate = Gate(campaign.opens_at_ms, campaign.closes_at_ms, before=shut, after=shut)
    return Steps((replace(move, gate=gate, revision=campaign.revision, heeds_status=True),))


def lapse(reservation: Reservation, campaign: Campaign | None, now_ms: int) -> Decision:
    """Its deadline has passed: it ends, or what was appointed for this time happens."""
    if reservation.state not in LIVE:
        return Unchanged()
    at = Gate(opens_at_ms=reservation.deadline_ms, before=Outcome.WRONG_STATE)
    if reservation.state is State.DEPOSIT_PAID and reservation.facts.before is None:
        return keep_appointments(reservation, campaign, now_ms)
    if not 0 < reservation.deadline_ms <= now_ms:
        return Unchanged()
    before = reservation.facts.before
    if reservation.state is State.HELD or before is None:
        return Steps((replace(_end(reservation, Event.EXPIRED, State.EXPIRED), gate=at),))
    if campaign is None:
        return Unchanged()
    facts = replace(reservation.facts, price=before.price, before=None)
    fewer = tuple(
        claim if claim.counter.startswith((GIFT, RANKED)) else claim._replace(n=before.quantity)
        for claim in _carried(reservation)
    )
    move = _step(
        reservation,
        Event.AMENDMENT_LAPSED,
        quantity=before.quantity,
        claims=fewer,
        facts=facts,
        deadline_ms=agenda(campaign, facts)[0].at_ms,
        data={"from": reservation.quantity},
    )
    return Steps((replace(move, gate=at, revision=campaign.revision),))


def keep_appointments(reservation: Reservation, campaign: Campaign | None, now_ms: int) -> Decision:
    """Remind of the balance, or forfeit what was not paid; by the windows as they are now."""
    facts = reservation.facts
    if reservation.state is not State.DEPOSIT_PAID or facts.before or campaign is None:
        return Unchanged()
    ahead = agenda(campaign, facts)
    past = [one for one in ahead if one.at_ms <= now_ms]
    if not past:
        if reservation.deadline_ms == ahead[0].at_ms:
            return Unchanged()
        move = _step(reservation, Event.RESCHEDULED, deadline_ms=ahead[0].at_ms)
        return Steps((replace(move, revision=campaign.revision),))
    last = past[-1]
    if facts.price.balance == 0:
        move = _step(reservation, Event.CONFIRMED, state=State.CONFIRMED, deadline_ms=0)
    elif not last.what:
        facts = replace(facts, kept=facts.received)
        move = _end(reservation, Event.FORFEITED, State.FORFEITED, facts=facts)
    else:
        facts = replace(facts, reminded=(*facts.reminded, *(one.what for one in past)))
        event = Event.BALANCE_OPENED if last.what == OPENED else Event.BALANCE_REMINDER
        next_at_ms = agenda(campaign, facts)[0].at_ms
        data: dict[str, object] = {"due_by": ahead[-1].at_ms, "amount": facts.price.balance}
        move = _step(reservation, event, facts=facts, deadline_ms=next_at_ms, data=data)
    gate = Gate(opens_at_ms=last.at_ms, before=Outcome.WRONG_STATE)
    return Steps((replace(move, gate=gate, revision=campaign.revision),))


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
    move = _step(reservation, Event.PAYMENT_REQUESTED, facts=facts)
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
        return Steps((_step(reservation, Event.PAYMENT_FAILED, facts=facts),))
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
    give_back = _step(
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
        carried = _carried(reservation)
        taken = _paid(reservation, campaign, state, carried, replace(facts, before=None), data)
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
        return _step(
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
    move = _step(
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
    return Steps((_step(reservation, Event.PAYMENT_REJECTED, facts=facts, data=data),))


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
    return Steps((_step(reservation, Event.REFUND_SUCCEEDED, facts=facts),))


def _give_back(facts: Facts, campaign: Campaign, amount: int, reason: str, now_ms: int) -> Facts:
    """Give so much of the deposit back, or keep it, as the campaign says."""
    if not campaign.document.keeps_deposits():
        return facts.with_refunds({Stage.DEPOSIT}, amount, reason, now_ms)
    return replace(facts, kept=facts.kept + amount)


def _carried(reservation: Reservation, beginning: tuple[str, ...] = ("",)) -> tuple[Claim, ...]:
    """What it holds already; no cap can refuse that."""
    return tuple(
        Claim(name, n, 0, Outcome.SOLD_OUT)
        for name, n in reservation.claims
        if name.startswith(beginning) and name != RANKED
    )


def _end(
    reservation: Reservation,
    event: Event,
    state: State,
    *,
    facts: Facts | None = None,
    data: dict[str, object] | None = None,
) -> Move:
    """A move that gives back all that was claimed."""
    facts = replace(facts or reservation.facts, before=None)
    return _step(reservation, event, state=state, claims=(), facts=facts, deadline_ms=0, data=data)


def _step(
    reservation: Reservation,
    event: Event,
    *,
    state: State | None = None,
    quantity: int | None = None,
    claims: Sequence[Claim] | None = None,
    facts: Facts | None = None,
    deadline_ms: int | None = None,
    hold_ms: int = 0,
    data: dict[str, object] | None = None,
) -> Move:
    """A move of this reservation; what is not named stays as it is."""
    state, facts = state or reservation.state, facts or reservation.facts
    claims = list(_carried(reservation) if claims is None else claims)
    if state in LIVE | SOLD and facts.received - facts.kept > 0:
        # Beyond what the store counts exactly it is not ranked; that must never refuse a payment.
        spent = min(facts.received - facts.kept, UNCAPPED)
        claims.append(Claim(RANKED, spent, UNCAPPED, optional("spend")))
    return Move(
        id=reservation.id,
        version=reservation.version,
        user=reservation.user,
        sku=reservation.sku,
        quantity=reservation.quantity if quantity is None else quantity,
        state=state,
        claims=claims,
        event=event,
        facts=facts.pack(),
        data=orjson.dumps(data or {}),
        hold_ms=hold_ms,
        deadline_ms=reservation.deadline_ms if deadline_ms is None else deadline_ms,
        queued=stock_counter(reservation.sku),
    )
