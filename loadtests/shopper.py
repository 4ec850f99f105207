"""A shopper at a flash sale."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from locust import FastHttpUser, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastResponse
from locust.exception import RescheduleTaskImmediately, StopUser

from loadtests.answers import BUSY, Answer, Unexpected
from loadtests.checks import (
    DELIVERED,
    HELD,
    REPLAYED,
    Offer,
    Reservation,
    check_given_up,
    check_greedy,
    check_page,
    check_paid,
    check_payment,
    check_replay,
    check_reserved,
    check_sandbox,
    offers_of,
)
from loadtests.opening import on_sale
from loadtests.tally import TALLY
from loadtests.tokens import shopper_token

THINK_SECONDS = (0.1, 1.0)
IDLE_SECONDS_MAX = 15.0
"""After this, servers and what stands before them may close a connection just as we use it again."""
UNEXPECTED = "unexpected"
"""The outcome of an answer that the contract does not allow. Locust says why, under its failures."""
NO_ANSWER = Answer(0, {}, b"")
UNKNOWN = BUSY | {UNEXPECTED}
"""After these, nobody knows whether it was done."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to reserve. Until it is answered it is made again with the same key."""

    offer: Offer
    key: str
    key_used_before: bool = False


class FlashSaleShopper(FastHttpUser):
    """Plays one shopper after another: when one has paid, given up or walked away, the next one comes.

    Every task is a thing that a shopper may do next; its number says how likely. What cannot be done
    now, such as paying for nothing, is not done: Locust then picks again at once.
    """

    # No shopper waits longer; a slower answer is a failure.
    connection_timeout = 10.0
    network_timeout = 10.0

    def on_start(self) -> None:
        sale = on_sale(self.environment)
        if sale is None:
            raise StopUser  # there is nothing to buy
        self._jwt_secret = sale.jwt_secret
        self._campaign = f"/v1/campaigns/{sale.campaign}"
        self._etag: str | None = None
        self._offers: list[Offer] = []
        self._not_before = self._last_asked = time.monotonic()
        self._next_shopper()

    def wait_time(self) -> float:
        """Think; or wait as long as the service asked for. Locust may stop the shopper meanwhile."""
        return max(random.uniform(*THINK_SECONDS), self._not_before - time.monotonic())

    @task(5)
    def browse(self) -> None:
        """Look at the page, as a browser does that has it already."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        outcome, answer = self._ask(
            "browse", "GET", self._campaign, lambda answer: check_page(answer, self._etag), headers=headers
        )
        if outcome == "changed":
            self._offers = offers_of(answer)
            self._etag = answer.headers["etag"]

    @task(10)
    def stampede(self) -> None:
        """Reserve, like everybody else."""
        if self._held is not None:
            _something_else()
        self._reserve()

    @task(5)
    def retry_impatiently(self) -> None:
        """Reserve, and tap again: it must be the same reservation. Later too, as long as it is held."""
        if self._held is None:
            self._reserve()
        if self._held is None or self._attempt is None:
            return
        first = self._held
        self._ask_to_reserve("retry", self._attempt, 1, lambda answer: check_replay(answer, first))

    @task(2)
    def be_greedy(self) -> None:
        """Ask for more than anybody may have."""
        offer = self._some_offer()
        if offer.quota is None:
            _something_else()
        self._ask_to_reserve("greedy", Attempt(offer, uuid.uuid4().hex), offer.quota + 1, check_greedy)

    @task(6)
    def pay(self) -> None:
        """Pay what is held, and see that it is ours."""
        held = self._held
        if held is None or held.due is None:
            _something_else()
        own = f"/v1/reservations/{held.id}"
        stage = {"stage": held.due[0]}
        outcome, answer = self._ask(
            "pay", "POST", f"{own}/payments", lambda answer: check_payment(answer, held), stage
        )
        if outcome == "asked":
            payment = f"/sandbox/payments/{answer.json()['payment_id']}"
            outcome, _ = self._ask("pay sandbox", "POST", payment, check_sandbox, {"outcome": "succeeded"})
        if outcome == DELIVERED:
            outcome, _ = self._ask("pay check", "GET", own, lambda answer: check_paid(answer, held))
        if outcome not in UNKNOWN | {"webhook_busy"}:
            self._next_shopper()

    @task(1)
    def give_up(self) -> None:
        """Cancel what is held: somebody else can have it."""
        held = self._held
        if held is None:
            _something_else()
        path = f"/v1/reservations/{held.id}"
        outcome, _ = self._ask("give up", "DELETE", path, lambda answer: check_given_up(answer, held))
        if outcome not in UNKNOWN:
            self._next_shopper()

    @task(1)
    def never_pay(self) -> None:
        """Walk away with it: it must expire and be sold to somebody else."""
        if self._held is None:
            _something_else()
        TALLY.count("never pay", "left to expire")
        self._next_shopper()

    def _next_shopper(self) -> None:
        self._token = shopper_token(self._jwt_secret, f"shopper-{uuid.uuid4().hex[:16]}")
        self._attempt: Attempt | None = None
        self._held: Reservation | None = None

    def _some_offer(self) -> Offer:
        if not self._offers:
            _something_else()  # nothing is on the page that we have; browse() gets another
        return random.choice(self._offers)

    def _reserve(self) -> None:
        # An attempt that nobody answered may have succeeded. The same key again cannot reserve twice.
        attempt = self._attempt or Attempt(self._some_offer(), uuid.uuid4().hex)
        outcome, answer = self._ask_to_reserve(
            "reserve",
            attempt,
            1,
            lambda answer: check_reserved(answer, attempt.offer.sku, key_used_before=attempt.key_used_before),
        )
        known = outcome not in UNKNOWN
        if outcome in (HELD, REPLAYED) and (reservation := Reservation.of(answer)).state == "held":
            self._held = reservation
        self._attempt = None if known and self._held is None else Attempt(attempt.offer, attempt.key, True)

    def _ask_to_reserve(
        self, request: str, attempt: Attempt, quantity: int, check: Callable[[Answer], str]
    ) -> tuple[str, Answer]:
        body = {"sku": attempt.offer.sku, "quantity": quantity}
        headers = {"Idempotency-Key": attempt.key}
        return self._ask(request, "POST", f"{self._campaign}/reservations", check, body, headers)

    def _ask(
        self,
        request: str,
        method: str,
        path: str,
        check: Callable[[Answer], str],
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[str, Answer]:
        """Make a request, and count it: for Locust by its name, for the table by its outcome too."""
        if time.monotonic() - self._last_asked > IDLE_SECONDS_MAX:
            self.client.client.clientpool.close()
        sent = {"Authorization": f"Bearer {self._token}", **(headers or {})}
        answer = NO_ANSWER
        with self.client.request(
            method, path, name=request, json=body, headers=sent, catch_response=True
        ) as response:
            try:
                answer = _heard(response)
                outcome = check(answer)
                response.success()
            except Unexpected as unexpected:
                outcome = UNEXPECTED
                response.failure(str(unexpected))
        TALLY.count(request, outcome)
        self._last_asked = time.monotonic()
        self._not_before = self._last_asked + answer.retry_after_s
        return outcome, answer


def _heard(response: FastResponse) -> Answer:
    """The answer. Raises Unexpected when there is none, or only part of one."""
    try:
        content = response.content or b""
    except FAILURE_EXCEPTIONS as error:
        raise Unexpected(f"the answer broke off: {type(error).__name__}") from None
    if response.status_code == 0:
        raise Unexpected(f"no answer: {type(getattr(response, 'error', None)).__name__}")
    headers = {name.lower(): value for name, value in (response.headers or {}).items()}
    return Answer(response.status_code, headers, content)


def _something_else() -> NoReturn:
    raise RescheduleTaskImmediately
