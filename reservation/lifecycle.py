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

from dataclasses import replace

from reservation.campaign import Campaign
from reservation.ids import Stage
from reservation.kernel import Gate
from reservation.outcomes import Outcome, Refusal
from reservation.record import GIFT, LIVE, SOLD, Agreed, Facts, Reservation, State
from reservation.steps import (
    OPENED,
    Decision,
    Event,
    Steps,
    Unchanged,
    agenda,
    carried,
    end,
    kind_of,
    step,
)

REFUNDS_MAX = 100
"""Beyond so many a shopper may no longer take less, and less again."""


def cancel(reservation: Reservation, campaign: Campaign | None, now_ms: int) -> Decision:
    """The shopper gives it up."""
    if reservation.state is State.CANCELLED:
        return Unchanged()
    if reservation.state is State.HELD:
        return Steps((end(reservation, Event.CANCELLED, State.CANCELLED),))
    if reservation.state is not State.DEPOSIT_PAID or not kind_of(reservation).amendable or campaign is None:
        return Refusal(Outcome.WRONG_STATE, f"A reservation that is {reservation.state} cannot be cancelled.")
    facts = reservation.facts
    facts = _give_back(facts, campaign, facts.standing_deposit, "cancelled", now_ms)
    move = end(reservation, Event.CANCELLED, State.CANCELLED, facts=facts)
    gate = Gate(closes_at_ms=campaign.closes_at_ms, after=Outcome.WRONG_STATE)
    return Steps((replace(move, gate=gate, revision=campaign.revision),))


def take_back(reservation: Reservation, reason: str, now_ms: int) -> Decision:
    """What entitled to it is gone: it is cancelled, or its money given back."""
    if reservation.state not in LIVE | SOLD:
        return Unchanged()
    facts = reservation.facts
    state = State.REFUNDED if facts.received else State.CANCELLED
    facts = facts.with_refunds(set(Stage), facts.received, reason, now_ms)
    return Steps((end(reservation, Event.TAKEN_BACK, state, facts=facts, data={"reason": reason}),))


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
    move = step(
        reservation,
        Event.AMENDED,
        quantity=quantity,
        claims=kind.claims(campaign, offer, quantity, facts.order_id) + carried(reservation, (GIFT,)),
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
        return Steps((replace(end(reservation, Event.EXPIRED, State.EXPIRED), gate=at),))
    if campaign is None:
        return Unchanged()
    facts = replace(reservation.facts, price=before.price, before=None)
    fewer = tuple(
        claim if claim.counter.startswith(GIFT) else claim._replace(n=before.quantity)
        for claim in carried(reservation)
    )
    move = step(
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
        move = step(reservation, Event.RESCHEDULED, deadline_ms=ahead[0].at_ms)
        return Steps((replace(move, revision=campaign.revision),))
    last = past[-1]
    if facts.price.balance == 0:
        move = step(reservation, Event.CONFIRMED, state=State.CONFIRMED, deadline_ms=0)
    elif not last.what:
        facts = replace(facts, kept=facts.received)
        move = end(reservation, Event.FORFEITED, State.FORFEITED, facts=facts)
    else:
        facts = replace(facts, reminded=(*facts.reminded, *(one.what for one in past)))
        event = Event.BALANCE_OPENED if last.what == OPENED else Event.BALANCE_REMINDER
        next_at_ms = agenda(campaign, facts)[0].at_ms
        data: dict[str, object] = {"due_by": ahead[-1].at_ms, "amount": facts.price.balance}
        move = step(reservation, event, facts=facts, deadline_ms=next_at_ms, data=data)
    gate = Gate(opens_at_ms=last.at_ms, before=Outcome.WRONG_STATE)
    return Steps((replace(move, gate=gate, revision=campaign.revision),))


def _give_back(facts: Facts, campaign: Campaign, amount: int, reason: str, now_ms: int) -> Facts:
    """Give so much of the deposit back, or keep it, as the campaign says."""
    if not campaign.document.keeps_deposits():
        return facts.with_refunds({Stage.DEPOSIT}, amount, reason, now_ms)
    return replace(facts, kept=facts.kept + amount)
