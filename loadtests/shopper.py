"""A shopper, at a sale of any kind."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

from locust import task
from locust.exception import StopUser

from loadtests.answers import Answer, Unexpected
from loadtests.asking import ANSWER_SECONDS_MAX, NO_ANSWER, UNKNOWN, Asker
from loadtests.checks import (
    DELIVERED,
    HELD,
    REPLAYED,
    SETTLED_STATES,
    Offer,
    Page,
    Reservation,
    check_amended,
    check_bot,
    check_given_up,
    check_greedy,
    check_joined,
    check_left,
    check_look,
    check_nonsense,
    check_order,
    check_order_cancelled,
    check_page,
    check_paid,
    check_paid_with_order,
    check_payment,
    check_replay,
    check_reserved,
    check_sandbox,
    held_of,
)
from loadtests.opening import on_sale
from loadtests.options import Options
from loadtests.tally import TALLY
from loadtests.timeline import UNEXPECTED
from loadtests.tokens import shopper_token
from loadtests.watching import Watched, watch
from loadtests.weights import in_turn

THINK_SECONDS = (0.1, 1.0)
WAIT_SECONDS_MAX = 60.0
"""For an opening. Then the page is read again: it may have been moved."""
WATCH_SECONDS = (1.0, 4.0)
ATTEMPTS_MAX = 5
"""With one key. Who then still knows nothing walks away; what was granted, if it was, expires."""
BURST = 10
"""Requests that a bot makes one after another."""
NONSENSE_PART = 0.3
PARKED_MAX = 50
"""Paid deposits that one simulated user remembers until their balances are due."""
BEFORE = ("scheduled", "warm_up")
SHUT_NOW = ("not_started", "paused", "ended")
NONSENSE: tuple[tuple[str, dict[str, Any] | str], ...] = (
    ("invalid_request", {"quantity": 0}),
    ("invalid_request", {"quantity": 10**12}),
    ("invalid_request", {"quantity": "all of them"}),
    ("invalid_request", {"quantity": 1, "price": 1}),
    ("offer_not_found", {"sku": "no-such-thing"}),
    ("malformed_json", '{"sku": '),
    ("unauthenticated", {}),
)
"""What a bot sends instead of a wish, and what it must be told."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to reserve. Until it is answered it is made again with the same key."""

    offer: Offer
    key: str
    order_id: str | None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Deal:
    """A reservation, whose it is, and how it came about; None for one that came from the line."""

    reservation: Reservation
    token: str
    attempt: Attempt | None
    order_id: str | None = None

    @property
    def path(self) -> str:
        return f"/v1/reservations/{self.reservation.id}"


class Shopper(Asker):
    """Plays one shopper after another: when one has paid, given up or walked away, the next one comes.

    Every habit is a thing that a shopper may do next, and its weight in weights.py says how likely. A habit
    returns whether it could be done now; if not, the next one is tried.
    """

    _user: str
    _order_id: str | None
    """The main order that is reported for the shopper, at a trade-in."""
    _attempt: Attempt | None
    _held: Deal | None
    _missed: Offer | None
    """What was sold out."""
    _line: Offer | None
    """What one stands in line for."""

    def on_start(self) -> None:
        super().on_start()
        sale = on_sale(self.environment)
        if sale is None:
            raise StopUser  # there is nothing to buy
        self._weights = Options.of(self.environment).weights
        self._sale = sale
        self._campaign = f"/v1/campaigns/{sale.campaign}"
        self._etag: str | None = None
        self._page: Page | None = None
        self._page_at = 0.0
        self._parked: list[Deal] = []
        """Whose deposit is paid, and whose balance is not due yet."""
        self._next_shopper()

    def wait_time(self) -> float:
        """Think; or wait as long as the service asked for. Locust may stop the shopper meanwhile."""
        return max(random.uniform(*THINK_SECONDS), self._not_before - time.monotonic())

    @task
    def act(self) -> None:
        """Do one thing that can be done now, if there is any."""
        for habit in in_turn(self._weights):
            if getattr(self, habit)():
                return

    # --- Looking ---

    def browse(self) -> bool:
        """Look at the page, as a browser does that has it already."""
        etag = self._etag
        headers = {"If-None-Match": etag} if etag else {}
        outcome, answer = self.ask(
            "browse", "GET", self._campaign, lambda answer: check_page(answer, etag), headers=headers
        )
        if outcome == "changed":
            self._page = Page.of(answer)
            self._page_at = time.monotonic()
            self._etag = answer.headers["etag"]
        return True

    def await_opening(self) -> bool:
        """Wait for the opening, or for that of the balance window; then look again, and come back."""
        page, seconds = self._page, None
        if page is None:
            return False
        if page.phase in BEFORE:
            seconds = page.opens_in_s
        elif page.phase == "between" and self._parked:
            seconds = page.balance_opens_in_s
        left = (seconds or 0.0) - (time.monotonic() - self._page_at)
        if left <= 0:
            return False
        self._not_before = time.monotonic() + min(left, WAIT_SECONDS_MAX)
        TALLY.count("wait", f"for {'the opening' if page.phase in BEFORE else 'the balance window'}")
        self._page = None
        self._etag = None
        return True

    def watch(self) -> bool:
        """Watch the campaign, or one's own reservation, for a while."""
        held = self._held
        path = f"{held.path}/events" if held else f"{self._campaign}/events"
        token, seconds = (held.token if held else ""), random.uniform(*WATCH_SECONDS)
        watched, failure, outcome = Watched(NO_ANSWER), None, "watched"
        started = time.perf_counter()
        try:
            watched = watch(self.environment.host or "", path, token, seconds, ANSWER_SECONDS_MAX)
            if watched.answer.status != 200:
                outcome = watched.answer.refusal()
        except Unexpected as unexpected:
            failure, outcome = unexpected, UNEXPECTED
            watched.first_ms = (time.perf_counter() - started) * 1000
        # Locust counts this one as if it had made it: until the first event, which is what one waits for.
        self.environment.events.request.fire(
            request_type="GET",
            name="watch",
            response_time=watched.first_ms,
            response_length=watched.bytes,
            exception=failure,
            context={},
        )
        self.count("watch", outcome, watched.first_ms, watched.answer)
        for name, count in watched.events.items():
            TALLY.count("watch event", name, count)
        return True

    # --- Reserving ---

    def stampede(self) -> bool:
        """Reserve, like everybody else."""
        if self._held is not None or self._line is not None:
            return False
        return self._reserve()

    def retry(self) -> bool:
        """Reserve, and tap again: it must be the same reservation. Later too, as long as it is held."""
        if self._held is None and (self._line is not None or not self._reserve()):
            return False
        held = self._held
        if held is not None and held.attempt is not None:
            first = held.reservation
            self._ask_to_reserve("retry", held.attempt, 1, lambda answer: check_replay(answer, first))
        return True

    def greedy(self) -> bool:
        """Ask for more than anybody may have."""
        offer = self._some_offer()
        if offer is None or offer.quota is None or self._needs_order:
            return False
        attempt = Attempt(offer, uuid.uuid4().hex, self._order_id)
        self._ask_to_reserve("greedy", attempt, offer.quota + 1, check_greedy)
        return True

    def bot(self) -> bool:
        """A script comes: it does not think, has many keys, and sends nonsense. Nobody gets more by that."""
        if self._held is not None or self._line is not None or self._attempt is not None:
            return False
        offer = self._some_offer()
        if offer is None:
            return False
        self._next_shopper()
        granted = 0
        for _ in range(BURST):
            if random.random() < NONSENSE_PART:
                _, answer = self._send_nonsense(offer)
            else:
                outcome, answer = self._ask_to_reserve(
                    "bot",
                    Attempt(offer, uuid.uuid4().hex, None),
                    1,
                    lambda answer: check_bot(answer, granted, offer.quota),  # noqa: B023
                )
                granted += outcome == HELD
            if answer.retry_after_s:
                break  # even a bot is told only once
        self._next_shopper()
        return True

    # --- What is held ---

    def pay(self) -> bool:
        """Pay what is held, and see that it is ours."""
        held = self._held
        if held is None or held.reservation.due is None:
            return False
        now = self._pay(held)
        if now is not None:
            self._park(now)
            self._next_shopper()
        return True

    def give_up(self) -> bool:
        """Cancel what is held, or what a deposit was paid for: somebody else can have it."""
        deal = self._held or (self._take_parked() if self._phase == "open" else None)
        if deal is None:
            return False
        outcome, _ = self.ask(
            "give up",
            "DELETE",
            deal.path,
            lambda answer: check_given_up(answer, deal.reservation),
            token=deal.token,
        )
        if deal is not self._held:
            if outcome in UNKNOWN:
                self._park(deal)
        elif outcome not in UNKNOWN:
            self._next_shopper()
        return True

    def never_pay(self) -> bool:
        """Walk away with it: it must expire and be sold to somebody else."""
        if self._held is None:
            return False
        TALLY.count("never pay", "left to expire")
        self._next_shopper()
        return True

    # --- Standing in line ---

    def join(self) -> bool:
        """Stand in line for what was sold out."""
        missed = self._missed
        if missed is None or self._held is not None or self._line is not None:
            return False
        body: dict[str, Any] = {"sku": missed.sku, "quantity": 1}
        if self._order_id is not None:
            body["order_id"] = self._order_id
        outcome, _ = self.ask("join line", "POST", f"{self._campaign}/waitlist", check_joined, body)
        if outcome == "waiting":
            self._line = missed
        elif outcome not in UNKNOWN:
            self._missed = None
        return True

    def leave(self) -> bool:
        """Leave the line again. What one was served in that moment expires."""
        line = self._line
        if line is None:
            return False
        outcome, _ = self.ask("leave line", "DELETE", f"{self._campaign}/waitlist?sku={line.sku}", check_left)
        if outcome not in UNKNOWN:
            self._next_shopper()
        return True

    def look(self) -> bool:
        """See whether the line has come to us."""
        if self._line is None:
            return False
        campaign = self._sale.campaign
        outcome, answer = self.ask("look", "GET", f"/v1/reservations?campaign={campaign}", check_look)
        if outcome == "served" and (found := held_of(answer)) is not None:
            self._held = Deal(found, self._token, None, self._order_id)
            self._line = None
        return True

    # --- Presales ---

    def amend(self) -> bool:
        """Change the quantity of what a deposit was paid for; pay the difference, if there is one."""
        if self._phase != "open" or (deal := self._take_parked()) is None:
            return False
        quantity = 2 if deal.reservation.quantity == 1 else 1
        outcome, answer = self.ask(
            "amend",
            "PATCH",
            deal.path,
            lambda answer: check_amended(answer, deal.reservation, quantity),
            {"quantity": quantity},
            token=deal.token,
        )
        if outcome == "amended":
            changed = replace(deal, reservation=Reservation.of(answer))
            due = changed.reservation.due
            if due is not None and due[0] == "deposit":
                changed = self._pay(changed) or changed
            self._park(changed)
        elif outcome != "wrong_state":
            self._park(deal)
        return True

    def balance(self) -> bool:
        """Pay the balance, in its window."""
        if self._phase != "balance" or (deal := self._take_parked()) is None:
            return False
        if self._pay(deal) is None:
            self._park(deal)
        return True

    def forfeit(self) -> bool:
        """Never pay the balance: the deposit is lost, and the unit is free."""
        if self._phase != "balance" or self._take_parked() is None:
            return False
        TALLY.count("forfeit", "left to forfeit")
        return True

    # --- Trade-ins ---

    def order(self) -> bool:
        """Buy what qualifies. The merchant's systems report the paid main order."""
        line = self._page.order_line if self._page else None
        if line is None or self._order_id is not None:
            return False
        order_id = f"load-{uuid.uuid4().hex[:24]}"
        body = {
            "order_id": order_id,
            "user": self._user,
            "lines": [line],
            "paid_at": "2026-01-01T00:00:00Z",
        }
        outcome, _ = self.ask(
            "report order",
            "POST",
            "/v1/orders",
            lambda answer: check_order(answer, order_id),
            body,
            token=self._sale.service_key,
        )
        if outcome == "reported":
            self._order_id = order_id
        return True

    def without_order(self) -> bool:
        """Ask for an add-on with no main order, or with one that nobody reported."""
        offer = self._some_offer()
        if offer is None:
            return False
        order_id = random.choice([None, f"load-never-reported-{uuid.uuid4().hex[:8]}"])
        self._ask_to_reserve(
            "without order", Attempt(offer, uuid.uuid4().hex, order_id), 1, _check_not_eligible
        )
        return True

    def pay_with_order(self) -> bool:
        """The main order's payment pays for the add-on as well; so the merchant's systems say."""
        held = self._held
        if held is None or held.order_id is None or held.reservation.due is None:
            return False
        body = {
            "reservation": held.reservation.id,
            "amount": held.reservation.due[1],
            "currency": "CNY",
            "provider_ref": f"order-{held.order_id}",
        }
        outcome, _ = self.ask(
            "pay with order",
            "POST",
            f"/v1/orders/{held.order_id}/payments",
            lambda answer: check_paid_with_order(answer, held.reservation),
            body,
            token=self._sale.service_key,
        )
        if outcome not in UNKNOWN:
            self._next_shopper()
        return True

    def cancel_order(self) -> bool:
        """Give the main order back, and with it what hangs on it: what is held, or paid just now."""
        held = self._held
        order_id = self._order_id
        if order_id is None:
            return False
        if held is not None and random.random() < 0.5:
            now = self._pay(held)
            if now is None:
                return True
            self._held = held = now
        # Perhaps since a try before, which nobody answered.
        paid = held is not None and held.reservation.state == "confirmed"
        outcome, _ = self.ask(
            "cancel order",
            "POST",
            f"/v1/orders/{order_id}/cancel",
            lambda answer: check_order_cancelled(answer, order_id, paid=paid),
            token=self._sale.service_key,
        )
        if outcome not in UNKNOWN:
            self._next_shopper()
        return True

    # --- How it is done ---

    @property
    def _phase(self) -> str | None:
        return self._page.phase if self._page else None

    @property
    def _needs_order(self) -> bool:
        return self._page is not None and self._page.order_line is not None and self._order_id is None

    def _next_shopper(self) -> None:
        self._user = f"shopper-{uuid.uuid4().hex[:16]}"
        self._token = shopper_token(self._sale.jwt_secret, self._user)
        self._order_id = None
        self._attempt = None
        self._held = None
        self._missed = None
        self._line = None

    def _some_offer(self) -> Offer | None:
        """None while nothing is on the page that we have; browse() gets another."""
        return random.choice(self._page.offers) if self._page and self._page.offers else None

    def _reserve(self) -> bool:
        if self._needs_order:
            return False
        # An attempt that nobody answered may have succeeded. The same key again cannot reserve twice.
        attempt, offer = self._attempt, self._some_offer()
        if attempt is None:
            if offer is None:
                return False
            attempt = Attempt(offer, uuid.uuid4().hex, self._order_id)
        outcome, answer = self._ask_to_reserve(
            "reserve",
            attempt,
            1,
            lambda answer: check_reserved(answer, attempt.offer.sku, key_used_before=attempt.tries > 0),
        )
        self._attempt = None
        if outcome in UNKNOWN:
            if attempt.tries + 1 < ATTEMPTS_MAX:
                self._attempt = replace(attempt, tries=attempt.tries + 1)
            else:
                TALLY.count("reserve", "walked away unanswered")
                self._next_shopper()
        elif outcome in (HELD, REPLAYED) and (reservation := Reservation.of(answer)).state == "held":
            self._held = Deal(reservation, self._token, attempt, self._order_id)
        elif outcome == "sold_out":
            self._missed = attempt.offer
        elif outcome in SHUT_NOW:
            self._page = self._etag = None  # what we have is out of date
        return True

    def _ask_to_reserve(
        self, request: str, attempt: Attempt, quantity: int, check: Any
    ) -> tuple[str, Answer]:
        body: dict[str, Any] = {"sku": attempt.offer.sku, "quantity": quantity}
        if attempt.order_id is not None:
            body["order_id"] = attempt.order_id
        headers = {"Idempotency-Key": attempt.key}
        return self.ask(request, "POST", f"{self._campaign}/reservations", check, body, headers)

    def _send_nonsense(self, offer: Offer) -> tuple[str, Answer]:
        code, wish = random.choice(NONSENSE)
        data = wish if isinstance(wish, str) else None
        body = None if isinstance(wish, str) else {"sku": offer.sku, **wish}
        return self.ask(
            "nonsense",
            "POST",
            f"{self._campaign}/reservations",
            lambda answer: check_nonsense(answer, code),
            body,
            {"Idempotency-Key": uuid.uuid4().hex},
            data=data,
            token="" if code == "unauthenticated" else None,
        )

    def _pay(self, deal: Deal) -> Deal | None:
        """Pay what is due, at the stand-in provider; the deal afterwards.

        None when nobody knows, and it can be tried again.
        """
        reservation = deal.reservation
        if reservation.due is None:
            return deal
        stage = {"stage": reservation.due[0]}
        outcome, answer = self.ask(
            "pay",
            "POST",
            f"{deal.path}/payments",
            lambda answer: check_payment(answer, reservation),
            stage,
            token=deal.token,
        )
        if outcome == "asked":
            payment = f"/sandbox/payments/{answer.json()['payment_id']}"
            outcome, _ = self.ask("pay sandbox", "POST", payment, check_sandbox, {"outcome": "succeeded"})
        if outcome == DELIVERED:
            outcome, answer = self.ask(
                "pay check",
                "GET",
                deal.path,
                lambda answer: check_paid(answer, reservation),
                token=deal.token,
            )
        if outcome in UNKNOWN | {"webhook_busy"}:
            return None
        return replace(deal, reservation=Reservation.of(answer)) if outcome in SETTLED_STATES else deal

    def _park(self, deal: Deal) -> None:
        """Remember a paid deposit until its balance is due."""
        if deal.reservation.state == "deposit_paid" and len(self._parked) < PARKED_MAX:
            self._parked.append(deal)

    def _take_parked(self) -> Deal | None:
        if not self._parked:
            return None
        return self._parked.pop(random.randrange(len(self._parked)))


def _check_not_eligible(answer: Answer) -> str:
    if answer.status == 201:
        raise Unexpected("201: an add-on without a main order")
    return answer.refusal(frozenset({"not_eligible", "not_started", "paused", "ended"}))
