"""The desk: where reservations are made, read, paid for and given up.

Each method reads, lets lifecycle.py or paying.py decide, and asks the store to move; when somebody else moved
first, it reads and decides again. Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

import orjson

from reservation import lifecycle, paying, tracing
from reservation.campaign import Campaign, stock_counter
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.ids import PaymentId, ReservationId, Stage, digest_of
from reservation.kernel import INDEX_IDS_MAX, Gate, Store, Terms
from reservation.kinds import KINDS
from reservation.main_order import MainOrder
from reservation.order_book import OrderBook
from reservation.outcomes import Contended, Outcome, Refusal, StoreUnavailable
from reservation.paying import Notice, NoticeType
from reservation.record import Facts, Price, Reservation, State
from reservation.steps import Decision, Event, Steps, Unchanged, due
from reservation.validation import FieldError, Invalid

ATTEMPTS_MAX = 100
"""Every lost attempt is another's success, and no more than a hundred move one reservation at once, as
notices of its refunds do: so running out means real trouble."""
USUAL_TERMS_MAX = 10_000

_DETAILS = {
    Outcome.IDEMPOTENCY_MISMATCH: "This Idempotency-Key was used with another request.",
    Outcome.OFFER_NOT_FOUND: "The campaign has no such offer.",
    Outcome.ENDED: "The campaign is over.",
    Outcome.NOT_STARTED: "The campaign has not opened yet.",
    Outcome.PAUSED: "The campaign is paused. Try again soon.",
    Outcome.NOT_ELIGIBLE: "The main order does not entitle to so many more.",
    Outcome.QUOTA_EXCEEDED: "This would be more than one user may take.",
    Outcome.SOLD_OUT: "There is not so much left.",
    Outcome.PAYMENT_WINDOW_CLOSED: "The time to pay for this reservation is over.",
    Outcome.RESERVATION_NOT_FOUND: "There is no such reservation.",
    Outcome.WRONG_STATE: "The reservation is not in a state that allows this.",
}
_INELIGIBLE = {
    "wrong_tier": "This is for members of other tiers.",
    "no_qualifying_order": "There is no main order of yours that entitles to this.",
    "used_up": "The main order does not entitle to so many more.",
}
_PAUSED_RETRY_S = 5
_NEXT_STEP = frozenset(
    {Outcome.QUOTA_EXCEEDED, Outcome.SOLD_OUT, Outcome.NOT_ELIGIBLE, Outcome.PAYMENT_WINDOW_CLOSED}
)
"""A move that limits or windows refuse gives way to the next one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a shopper asks for."""

    sku: str
    quantity: int
    order_id: str | None = None
    """The main order that a trade-in belongs to."""

    @property
    def fingerprint(self) -> str:
        """Tells the same request from another under the same key."""
        named = [self.sku, self.quantity, *([self.order_id] if self.order_id else [])]
        return blake2b(orjson.dumps(named), digest_size=6).hexdigest()


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
        self._orders = OrderBook(store)
        self._usual: dict[tuple[str, str | None, str, int], tuple[Terms, str | None]] = {}

    async def reserve(
        self, campaign_id: str, user: str, tier: str | None, key: str, request: Request
    ) -> Reserved | Refusal:
        """Make a reservation, or find the one that this key has made. Raises Invalid."""
        for attempt in range(ATTEMPTS_MAX):
            load = self._catalog.load if attempt else self._catalog.get
            campaign = await load(campaign_id)
            if campaign is None:
                return no_campaign(campaign_id)
            terms, why = await self.terms(campaign, user, tier, request)
            digest = digest_of(campaign.id, user, key)
            tracing.concerns(ReservationId(campaign.id, digest), after=0)
            outcome, now_ms, reservation = await self._store.reserve(terms, digest, user)
            self._clock.hear(now_ms)
            if outcome is Outcome.STALE:
                continue
            if outcome is Outcome.REPLAYED:
                tracing.concerns(ReservationId(campaign.id, digest))
            if outcome in (Outcome.MOVED, Outcome.REPLAYED) and reservation is not None:
                return Reserved(reservation, outcome is Outcome.REPLAYED)
            if outcome is Outcome.STORE_UNAVAILABLE:
                raise StoreUnavailable(f"the store is fenced, or does not have campaign {campaign_id}")
            return refusal_of(outcome, campaign, now_ms, why)
        raise Contended(campaign_id)

    async def terms(
        self, campaign: Campaign, user: str, tier: str | None, request: Request
    ) -> tuple[Terms, str | None]:
        """The terms that this user reserves on, and why the user may not, if so. Raises Invalid."""
        if request.order_id is None:
            return self.usual_terms(campaign, tier, request.sku, request.quantity)
        kind = KINDS[campaign.kind]
        if not kind.takes_orders:
            raise Invalid(FieldError("order_id", f"a {campaign.kind} has no main orders"))
        order = await self._orders.enrol(request.order_id, user, campaign, kind)
        return _terms(campaign, tier, request, order)

    def usual_terms(
        self, campaign: Campaign, tier: str | None, sku: str, quantity: int
    ) -> tuple[Terms, str | None]:
        """The terms of who names no main order: made once for all who ask for the same."""
        key = (campaign.id, tier, sku, quantity)
        known = self._usual.get(key)
        if known is None or known[0].revision != campaign.revision:
            known = _terms(campaign, tier, Request(sku, quantity), None)
            if len(self._usual) >= USUAL_TERMS_MAX:
                self._usual.clear()
            if sku in campaign.offers:
                self._usual[key] = known
        return known

    async def read(self, reservation_id: ReservationId, user: str) -> Reservation | Refusal:
        """One of the user's own reservations."""
        reservation = await self._store.reservation(reservation_id)
        if reservation is None or reservation.user != user:
            return refusal_of(Outcome.RESERVATION_NOT_FOUND)
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
        def decide(own: Reservation, campaign: Campaign | None) -> Decision:
            return self._own(own, user) or lifecycle.cancel(own, campaign, self._clock.now_ms())

        return await self._change(reservation_id, decide)

    async def amend(self, reservation_id: ReservationId, user: str, quantity: int) -> Reservation | Refusal:
        """Change the quantity. A difference in deposit is then due, or given back."""

        def decide(own: Reservation, campaign: Campaign | None) -> Decision:
            return self._own(own, user) or lifecycle.amend(own, campaign, quantity, self._clock.now_ms())

        return await self._change(reservation_id, decide)

    async def quote(self, campaign_id: str, lines: Sequence[Request]) -> list[Price] | Refusal:
        """What reservations of these lines would cost, each."""
        campaign = await self._catalog.get(campaign_id)
        if campaign is None:
            return no_campaign(campaign_id)
        prices = []
        for line in lines:
            offer = campaign.offers.get(line.sku)
            if offer is None:
                return refusal_of(Outcome.OFFER_NOT_FOUND)
            prices.append(KINDS[campaign.kind].price(campaign, offer, line.quantity))
        return prices

    async def request_payment(
        self, reservation_id: ReservationId, user: str, stage: Stage
    ) -> Reservation | Refusal:
        def decide(own: Reservation, campaign: Campaign | None) -> Decision:
            refusal = self._own(own, user)
            return refusal or paying.request_payment(own, campaign, stage, self._clock.now_ms())

        return await self._change(reservation_id, decide)

    async def pay_with_order(
        self, reservation_id: ReservationId, order_id: str, amount: int, currency: str, provider_ref: str
    ) -> Reservation | Refusal:
        """Take a service's word that the main order's payment has paid for this trade-in. Raises Invalid."""

        def decide(found: Reservation, _: Campaign | None) -> Decision:
            if found.facts.order_id != order_id:
                return refusal_of(Outcome.RESERVATION_NOT_FOUND)
            owed = due(found)
            if owed and (owed.amount, found.facts.price.currency) != (amount, currency):
                raise Invalid(FieldError("amount", f"{owed.amount} {found.facts.price.currency} is due"))
            notice = Notice(NoticeType.PAYMENT_SUCCEEDED, Stage.FULL, amount, currency, provider_ref)
            return paying.pay_with_order(found, notice, self._clock.now_ms())

        return await self._change(reservation_id, decide)

    async def payment(self, payment_id: PaymentId) -> Reservation | None:
        """The reservation that such a payment was asked for, or None."""
        reservation = await self._store.reservation(payment_id.reservation)
        known = reservation is not None and payment_id.name in reservation.facts.payments
        return reservation if known else None

    async def take_notice(self, payment_id: PaymentId, notice: Notice) -> tuple[Taken, Reservation | None]:
        """The payment provider's word: at least once, in any order."""
        taken = Taken.UNKNOWN

        def decide(found: Reservation, campaign: Campaign | None) -> Decision:
            nonlocal taken
            decision = paying.take_notice(found, campaign, notice, self._clock.now_ms())
            if decision is None:
                taken = Taken.UNKNOWN
                return Unchanged()
            if paying.mismatched(found, notice):
                taken = Taken.MISMATCHED
            else:
                taken = Taken.KNOWN if isinstance(decision, Unchanged) else Taken.TAKEN
            return decision

        reservation = await self._change(payment_id.reservation, decide)
        if isinstance(reservation, Refusal):
            return Taken.UNKNOWN, None
        return taken, reservation

    async def lapse(self, reservation_id: ReservationId) -> bool:
        """Do what a reservation's passed deadline asks for; whether anything was."""
        return await self._by_time(reservation_id, lifecycle.lapse)

    async def keep_appointments(self, reservation_id: ReservationId) -> bool:
        """Bring a reservation in line with its campaign's windows; whether that changed it."""
        return await self._by_time(reservation_id, lifecycle.keep_appointments)

    async def take_back(self, reservation_id: ReservationId, reason: str) -> Reservation | Refusal:
        """End it, and give its money back: what entitled to it is gone."""
        return await self._change(
            reservation_id, lambda found, _: lifecycle.take_back(found, reason, self._clock.now_ms())
        )

    async def due(self, limit: int) -> list[ReservationId]:
        """Reservations whose deadline has passed."""
        self._clock.hear(await self._store.now_ms())
        return await self._store.due(limit)

    async def _by_time(
        self,
        reservation_id: ReservationId,
        decide_by: Callable[[Reservation, Campaign | None, int], Decision],
    ) -> bool:
        changed = False

        def decide(found: Reservation, campaign: Campaign | None) -> Decision:
            nonlocal changed
            decision = decide_by(found, campaign, self._clock.now_ms())
            changed = isinstance(decision, Steps)
            return decision

        after = await self._change(reservation_id, decide)
        return changed and isinstance(after, Reservation)

    async def _change(
        self,
        reservation_id: ReservationId,
        decide: Callable[[Reservation, Campaign | None], Decision],
    ) -> Reservation | Refusal:
        """Read, decide, move; again when the reservation or the campaign changed meanwhile."""
        reservation = await self._store.reservation(reservation_id)
        campaign = await self._catalog.get(reservation_id.campaign)
        for _ in range(ATTEMPTS_MAX):
            if reservation is None:
                return refusal_of(Outcome.RESERVATION_NOT_FOUND)
            decision = decide(reservation, campaign)
            if isinstance(decision, Unchanged):
                await self._store.confirm(reservation_id.campaign)  # by whomever it was made
                return reservation
            if isinstance(decision, Refusal):
                return decision
            outcome = Outcome.CONFLICT
            for move in decision.moves:
                outcome, now_ms, moved = await self._store.move(move)
                self._clock.hear(now_ms)
                if outcome not in _NEXT_STEP:
                    break
            if outcome is Outcome.MOVED and moved is not None:
                return moved
            if outcome is Outcome.CONFLICT:
                reservation = moved
            elif outcome is Outcome.STALE:
                campaign = await self._catalog.load(reservation_id.campaign)
            elif outcome is Outcome.STORE_UNAVAILABLE:
                raise StoreUnavailable(
                    f"the store is fenced, or does not have campaign {reservation_id.campaign}"
                )
            else:
                return refusal_of(outcome, campaign, now_ms, pays_from_ms=move.gate.opens_at_ms)
        raise Contended(str(reservation_id))

    @staticmethod
    def _own(reservation: Reservation, user: str) -> Refusal | None:
        """Another's reservation is answered as if it were not there."""
        return None if reservation.user == user else refusal_of(Outcome.RESERVATION_NOT_FOUND)


def _terms(
    campaign: Campaign, tier: str | None, request: Request, order: MainOrder | None
) -> tuple[Terms, str | None]:
    """The terms, and why who asks may not take part, if so."""
    kind, offer = KINDS[campaign.kind], campaign.offers.get(request.sku)
    why_not = kind.ineligible(campaign, offer, tier, order) if offer else None
    facts = b"{}"
    if offer is not None:
        price = kind.price(campaign, offer, request.quantity)
        items = tuple((item.sku, item.quantity) for item in offer.items or ())
        facts = Facts(campaign.kind, price, items=items, order_id=request.order_id).pack()
    terms = Terms(
        campaign=campaign.id,
        sku=request.sku,
        quantity=request.quantity,
        state=State.HELD,
        claims=kind.claims(campaign, offer, request.quantity, request.order_id) if offer else (),
        event=Event.RESERVED,
        facts=facts,
        data=orjson.dumps({"tier": tier}),
        hold_ms=campaign.hold_ms,
        gate=Gate(campaign.opens_at_ms, campaign.closes_at_ms),
        revision=campaign.revision,
        fingerprint=request.fingerprint,
        first_refusal="" if offer else Outcome.OFFER_NOT_FOUND,
        last_refusal=Outcome.NOT_ELIGIBLE if why_not else "",
        queued=stock_counter(request.sku),
    )
    return terms, why_not


def no_campaign(campaign_id: str) -> Refusal:
    return Refusal(Outcome.CAMPAIGN_NOT_FOUND, f"There is no campaign {campaign_id}.")


def refusal_of(
    outcome: Outcome,
    campaign: Campaign | None = None,
    now_ms: int = 0,
    why: str | None = None,
    pays_from_ms: int = 0,
) -> Refusal:
    """The refusal that the store's outcome is to who asked."""
    opens_at_ms = retry_after_s = reason = None
    detail = _DETAILS[outcome]
    if outcome is Outcome.NOT_STARTED and campaign is not None:
        opens_at_ms = campaign.opens_at_ms
    if outcome is Outcome.PAYMENT_WINDOW_CLOSED and now_ms < pays_from_ms:
        opens_at_ms, detail = pays_from_ms, "The balance cannot be paid yet."
    if opens_at_ms is not None:
        retry_after_s = max(1, -(-(opens_at_ms - now_ms) // 1000))
    if outcome is Outcome.PAUSED:
        retry_after_s = _PAUSED_RETRY_S
    if outcome is Outcome.NOT_ELIGIBLE:
        reason = why or "used_up"
        detail = _INELIGIBLE[reason]
    return Refusal(outcome, detail, opens_at_ms, retry_after_s, reason)
