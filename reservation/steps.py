"""What a decision about a reservation is made of: events, what is due and when, and moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import orjson

from reservation.campaign import Campaign, stock_counter
from reservation.ids import Stage
from reservation.kernel import RANKED, UNCAPPED, Claim, Move, optional
from reservation.kinds import KINDS
from reservation.kinds.kind import Kind
from reservation.outcomes import Outcome, Refusal
from reservation.record import LIVE, SOLD, Facts, Reservation, State

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
    RESTATED = "restated"  # nothing: the book is told once more what it has lost, or never heard


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


def carried(reservation: Reservation, beginning: tuple[str, ...] = ("",)) -> tuple[Claim, ...]:
    """What it holds already; no cap can refuse that."""
    return tuple(
        Claim(name, n, 0, Outcome.SOLD_OUT)
        for name, n in reservation.claims
        if name.startswith(beginning) and name != RANKED
    )


def end(
    reservation: Reservation,
    event: Event,
    state: State,
    *,
    facts: Facts | None = None,
    data: dict[str, object] | None = None,
) -> Move:
    """A move that gives back all that was claimed."""
    facts = replace(facts or reservation.facts, before=None)
    return step(reservation, event, state=state, claims=(), facts=facts, deadline_ms=0, data=data)


def step(
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
    claims = list(carried(reservation) if claims is None else claims)
    if state in LIVE | SOLD and facts.standing > 0:
        # Beyond what the store counts exactly it is not ranked; that must never refuse a payment.
        spent = min(facts.standing, UNCAPPED)
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
