"""The desk: where reservations are made, read, paid for and given up.

Each method reads, lets lifecycle.py decide, and asks the store to move; when somebody else moved
first, it reads and decides again. Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

import orjson

from reservation import lifecycle
from reservation.campaign import Campaign
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.ids import PaymentId, ReservationId, Stage
from reservation.kernel import INDEX_IDS_MAX, Gate, Move, Store
from reservation.kinds import KINDS
from reservation.lifecycle import Decision, Event, Notice, Steps, Unchanged
from reservation.outcomes import Contended, Outcome, Refusal, StoreUnavailable
from reservation.record import Facts, Reservation, State

ATTEMPTS_MAX = 20
"""Every lost attempt is another's success, so running out means real trouble."""

_DETAILS = {
    Outcome.IDEMPOTENCY_MISMATCH: "This Idempotency-Key was used with another request.",
    Outcome.OFFER_NOT_FOUND: "The campaign has no such offer.",
    Outcome.ENDED: "The campaign is over.",
    Outcome.NOT_STARTED: "The campaign has not opened yet.",
    Outcome.PAUSED: "The campaign is paused. Try again soon.",
    Outcome.NOT_ELIGIBLE: "This campaign is for members of other tiers.",
    Outcome.QUOTA_EXCEEDED: "This would be more than one user may take.",
    Outcome.SOLD_OUT: "There is not so much left.",
    Outcome.PAYMENT_WINDOW_CLOSED: "The time to pay for this reservation is over.",
    Outcome.RESERVATION_NOT_FOUND: "There is no such reservation.",
    Outcome.WRONG_STATE: "The reservation is not in a state that allows this.",
}
_PAUSED_RETRY_S = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What a shopper asks for."""

    sku: str
    quantity: int

    @property
    def fingerprint(self) -> str:
        """Tells the same request from another under the same key."""
        return blake2b(orjson.dumps([self.sku, self.quantity]), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Reserved:
    reservation: Reservation
    replayed: bool


class Taken(StrEnum):
    """What became of a payment provider's notice."""

    TAKEN = "taken"
    KNOWN = "known"
    UNKNOWN = "unknown"
    MISMATCHED = "mismatched"


class UserMemory(Protocol):
    """The book's memory of users."""

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        """All of a user's reservations that have reached the book."""
        ...


class _Forgetful:
    """For who lists no reservations."""

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        return []


FORGETFUL: UserMemory = _Forgetful()


class Desk:
    """The use cases of one reservation at a time."""

    def __init__(
        self, store: Store, catalog: Catalog, clock: StoreClock, memory: UserMemory = FORGETFUL
    ) -> None:
        self._store = store
        self._memory = memory
        self._catalog = catalog
        self._clock = clock

    async def reserve(
        self, campaign_id: str, user: str, tier: str | None, key: str, request: Request
    ) -> Reserved | Refusal:
        """Make a reservation, or find the one that this key has made."""
        for attempt in range(ATTEMPTS_MAX):
            load = self._catalog.load if attempt else self._catalog.get
            campaign = await load(campaign_id)
            if campaign is None:
                return Refusal(Outcome.CAMPAIGN_NOT_FOUND, f"There is no campaign {campaign_id}.")
            move = _first_move(campaign, user, tier, key, request)
            outcome, now_ms, reservation = await self._store.move(move)
            self._clock.hear(now_ms)
            if outcome is Outcome.STALE:
                continue
            if outcome in (Outcome.MOVED, Outcome.REPLAYED) and reservation is not None:
                return Reserved(reservation, outcome is Outcome.REPLAYED)
            if outcome is Outcome.STORE_UNAVAILABLE:
                raise StoreUnavailable(f"the store does not have campaign {campaign_id}")
            return _refusal(outcome, campaign, now_ms)
        raise Contended(campaign_id)

    async def read(self, reservation_id: ReservationId, user: str) -> Reservation | Refusal:
        """One of the user's own reservations."""
        reservation = await self._store.reservation(reservation_id)
        if reservation is None or reservation.user != user:
            return _refusal(Outcome.RESERVATION_NOT_FOUND)
        return reservation

    async def list_of(self, user: str, campaign_id: str | None) -> list[Reservation]:
        """The user's own reservations, newest first."""
        ids = await self._store.reservation_ids_of(user)
        if len(ids) >= INDEX_IDS_MAX:
            # The store's index ends somewhere. What is older has long been in the book.
            ids = list(dict.fromkeys(ids + await self._memory.reservation_ids_of(user)))
        if campaign_id is not None:
            ids = [one for one in ids if one.campaign == campaign_id]
        found = [one for one in await self._store.reservations(ids) if one is not None]
        return sorted(found, key=lambda one: (one.created_at_ms, str(one.id)), reverse=True)

    async def cancel(self, reservation_id: ReservationId, user: str) -> Reservation | Refusal:
        return await self._change(reservation_id, lambda own: self._own(own, user) or lifecycle.cancel(own))

    async def request_payment(
        self, reservation_id: ReservationId, user: str, stage: Stage
    ) -> Reservation | Refusal:
        def decide(own: Reservation) -> Decision:
            refusal = self._own(own, user)
            return refusal or lifecycle.request_payment(own, stage, self._clock.now_ms())

        return await self._change(reservation_id, decide)

    async def payment(self, payment_id: PaymentId) -> Reservation | None:
        """The reservation that such a payment was asked for, or None."""
        reservation = await self._store.reservation(payment_id.reservation)
        known = reservation is not None and payment_id.stage in reservation.facts.payments
        return reservation if known else None

    async def take_notice(self, payment_id: PaymentId, notice: Notice) -> tuple[Taken, Reservation | None]:
        """The payment provider's word: at least once, in any order."""
        campaign = await self._catalog.get(payment_id.reservation.campaign)
        taken = Taken.UNKNOWN

        def decide(found: Reservation) -> Decision:
            nonlocal campaign, taken
            now_ms = self._clock.now_ms()
            decision = lifecycle.take_notice(found, campaign, notice, now_ms)
            if decision is None:
                taken = Taken.UNKNOWN
                return Unchanged()
            if lifecycle.mismatched(found, notice):
                taken = Taken.MISMATCHED
            else:
                taken = Taken.KNOWN if isinstance(decision, Unchanged) else Taken.TAKEN
            return decision

        async def reload() -> None:
            nonlocal campaign
            campaign = await self._catalog.load(payment_id.reservation.campaign)

        reservation = await self._change(payment_id.reservation, decide, reload)
        if isinstance(reservation, Refusal):
            return Taken.UNKNOWN, None
        return taken, reservation

    async def lapse(self, reservation_id: ReservationId) -> bool:
        """End a reservation whose deadline has passed; whether that ended it."""
        lapsed = False

        def decide(found: Reservation) -> Decision:
            nonlocal lapsed
            decision = lifecycle.lapse(found, self._clock.now_ms())
            lapsed = isinstance(decision, Steps)
            return decision

        ended = await self._change(reservation_id, decide)
        return lapsed and isinstance(ended, Reservation)

    async def due(self, limit: int) -> list[ReservationId]:
        """Reservations whose deadline has passed."""
        self._clock.hear(await self._store.now_ms())
        return await self._store.due(limit)

    async def _change(
        self,
        reservation_id: ReservationId,
        decide: Callable[[Reservation], Decision],
        reload: Callable[[], Awaitable[None]] | None = None,
    ) -> Reservation | Refusal:
        """Read, decide, move; again when the reservation or the campaign changed meanwhile."""
        reservation = await self._store.reservation(reservation_id)
        for _ in range(ATTEMPTS_MAX):
            if reservation is None:
                return _refusal(Outcome.RESERVATION_NOT_FOUND)
            decision = decide(reservation)
            if isinstance(decision, Unchanged):
                return reservation
            if isinstance(decision, Refusal):
                return decision
            outcome = Outcome.CONFLICT
            for move in decision.moves:
                outcome, now_ms, moved = await self._store.move(move)
                self._clock.hear(now_ms)
                if outcome not in (Outcome.QUOTA_EXCEEDED, Outcome.SOLD_OUT, Outcome.NOT_ELIGIBLE):
                    break
            if outcome is Outcome.MOVED and moved is not None:
                return moved
            if outcome is Outcome.CONFLICT:
                reservation = moved
            elif outcome is Outcome.STALE and reload is not None:
                await reload()
            elif outcome is Outcome.STORE_UNAVAILABLE:
                raise StoreUnavailable(f"the store does not have {reservation_id.campaign}")
            else:
                return _refusal(outcome)
        raise Contended(str(reservation_id))

    @staticmethod
    def _own(reservation: Reservation, user: str) -> Refusal | None:
        """Another's reservation is answered as if it were not there."""
        return None if reservation.user == user else _refusal(Outcome.RESERVATION_NOT_FOUND)


def _first_move(campaign: Campaign, user: str, tier: str | None, key: str, request: Request) -> Move:
    kind = KINDS[campaign.kind]
    offer = campaign.offers.get(request.sku)
    eligible = campaign.tiers is None or tier in campaign.tiers
    facts = b""
    if offer is not None:
        facts = Facts(campaign.kind, kind.price(campaign, offer, request.quantity)).pack()
    title = offer.title if offer else None
    lines = [{"sku": request.sku, "title": title, "quantity": request.quantity}]
    return Move(
        id=ReservationId.derive(campaign.id, user, key),
        version=0,
        user=user,
        sku=request.sku,
        quantity=request.quantity,
        state=State.HELD,
        claims=kind.claims(campaign, offer, request.quantity) if offer else (),
        event=Event.RESERVED,
        facts=facts,
        data=orjson.dumps({"lines": lines, "tier": tier}),
        hold_ms=campaign.hold_ms,
        gate=Gate(campaign.opens_at_ms, campaign.closes_at_ms),
        revision=campaign.revision,
        fingerprint=request.fingerprint,
        first_refusal="" if offer else Outcome.OFFER_NOT_FOUND,
        last_refusal="" if eligible else Outcome.NOT_ELIGIBLE,
    )


def _refusal(outcome: Outcome, campaign: Campaign | None = None, now_ms: int = 0) -> Refusal:
    opens_at_ms = retry_after_s = None
    if outcome is Outcome.NOT_STARTED and campaign is not None:
        opens_at_ms = campaign.opens_at_ms
        retry_after_s = max(1, -(-(opens_at_ms - now_ms) // 1000))
    if outcome is Outcome.PAUSED:
        retry_after_s = _PAUSED_RETRY_S
    return Refusal(outcome, _DETAILS[outcome], opens_at_ms, retry_after_s)
