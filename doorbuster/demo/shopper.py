"""A simulated shopper: what one can do over HTTP, and the note that is taken of every answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

import aiohttp

from doorbuster.demo.log import Log, Place, View

_LEADS_TO = {"full": "confirmed", "deposit": "deposit_paid", "balance": "confirmed"}
_RETRIES_MAX = 20


Answers = str | Callable[[], str]
"""The words that an answer may be, with a space between; or what to ask for them once it has come."""


class Told(NamedTuple):
    """An answer: what was done, or the refusal's code."""

    outcome: str
    body: View


class Asker:
    """Asks the service, and notes every answer that it did not expect."""

    def __init__(self, session: aiohttp.ClientSession, log: Log, name: str, token: str) -> None:
        self.log = log
        self.name = name
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"}

    async def ask(
        self,
        method: str,
        path: str,
        done: str,
        *,
        answers: Answers | None = None,
        body: View | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """One request, said again while the service is too busy.

        `done` is what a good answer means. `answers` are those that the contract names for this; `done`
        alone where left out.
        """
        for _ in range(_RETRIES_MAX):
            async with self._session.request(
                method, path, json=body, headers={**self._headers, **(headers or {})}
            ) as answer:
                found = await answer.json()
            outcome = done if answer.status < 300 else str(found.get("code", answer.status))
            if answer.headers.get("Idempotent-Replayed") == "true":
                outcome = "replayed"
            self.log.requests += 1
            self.log.outcomes[outcome] += 1
            if outcome != "overloaded":
                break
            await asyncio.sleep(found["retry_after_s"])
        expected = (answers() if callable(answers) else answers or done).split()
        if outcome not in expected:
            self.unexpected(f"{method} {path}", f"{outcome} ({found.get('detail', '')})", expected)
        return Told(outcome, found)

    def unexpected(self, what: str, found: str, expected: list[str]) -> None:
        self.log.unexpected.append(f"{self.name}: {what}: {found}, not {' or '.join(expected)}")


class Shopper(Asker):
    """One user."""

    def __init__(
        self, session: aiohttp.ClientSession, log: Log, name: str, token: str, dice: random.Random
    ) -> None:
        super().__init__(session, log, name, token)
        self.dice = dice
        self._path = f"/v1/campaigns/{log.campaign}"

    async def pause(self, seconds_max: float) -> None:
        """Think, for a while."""
        await asyncio.sleep(seconds_max * self.dice.random())

    async def visit(self) -> None:
        """Look at the campaign, as who comes does."""
        await self.ask("GET", self._path, "seen")

    async def quote(self, sku: str, quantity: int = 1) -> None:
        """Ask what it would cost."""
        wanted = {"sku": sku, "quantity": quantity}
        told = await self.ask("POST", f"{self._path}/quote", "quoted", body=wanted)
        if told.outcome == "quoted":
            self.log.take_quote(sku, quantity, told.body["price"])

    async def reserve(
        self,
        sku: str,
        quantity: int = 1,
        *,
        key: str | None = None,
        order_id: str | None = None,
        answers: Answers = "held",
    ) -> View | None:
        """Press the button; the reservation, if there is one now."""
        key = key or f"{self.name}-{self.dice.getrandbits(64):x}"
        wanted = {"sku": sku, "quantity": quantity} | ({"order_id": order_id} if order_id else {})
        started = time.perf_counter()
        told = await self.ask(
            *("POST", f"{self._path}/reservations", "held"),
            answers=or_from(answers, self.log.closes_at, "ended"),
            body=wanted,
            headers={"Idempotency-Key": key},
        )
        self.log.reserve_ms.append((time.perf_counter() - started) * 1000)
        if told.outcome not in ("held", "replayed"):
            return None
        self.log.by_key.setdefault((self.name, key), set()).add(told.body["id"])
        self.log.see(told.body)
        return told.body

    async def look(self, held: View) -> View:
        """The reservation as it is now."""
        told = await self.ask("GET", f"/v1/reservations/{held['id']}", "seen")
        if told.outcome == "seen":
            self.log.see(told.body)
            return told.body
        return held

    async def look_until(self, held: View, state: str, seconds_max: float) -> View:
        """The reservation, once it is in this state; or as it is when that takes too long."""
        until = time.monotonic() + seconds_max
        while held["state"] != state and time.monotonic() < until:
            await asyncio.sleep(0.2)
            held = await self.look(held)
        return held

    async def mine(self, *, noted: bool = True) -> dict[str, View]:
        """All own reservations of this campaign, by id; `noted` is whether they go into the log."""
        told = await self.ask("GET", f"/v1/reservations?campaign={self.log.campaign}&limit=100", "listed")
        found = {one["id"]: one for one in told.body.get("reservations", [])}
        for one in found.values() if noted else ():
            self.log.see(one)
        return found

    async def amend(self, held: View, quantity: int, *, answers: Answers = "amended") -> View:
        """Change the quantity; the reservation afterwards."""
        path, body = f"/v1/reservations/{held['id']}", {"quantity": quantity}
        told = await self.ask(
            *("PATCH", path, "amended"),
            answers=or_from(answers, self._changes_end_at(held), "wrong_state"),
            body=body,
        )
        if told.outcome != "amended":
            return held
        self.log.see(told.body)
        return told.body

    async def cancel(self, held: View) -> None:
        told = await self.ask(
            *("DELETE", f"/v1/reservations/{held['id']}", "cancelled"),
            answers=or_from("cancelled", self._changes_end_at(held), "wrong_state"),
        )
        if told.outcome == "cancelled":
            self.log.see(told.body)
            self.log.followed[held["id"]].given_up_at = time.time()
            if told.body["state"] != "cancelled":
                self.unexpected("cancelled", told.body["state"], ["cancelled"])

    async def pay(self, held: View, stage: str, *, or_else: str = "") -> View:
        """Pay what is due; the reservation afterwards. `or_else`: states that it may end in as well."""
        payment = await self.request_payment(held, stage)
        return held if payment is None else await self.settle(held, payment, or_else=or_else)

    async def request_payment(
        self, held: View, stage: str, *, answers: Answers = "payment_requested"
    ) -> View | None:
        told = await self.ask(
            *("POST", f"/v1/reservations/{held['id']}/payments", "payment_requested"),
            answers=or_from(answers, due_by(held), "payment_window_closed wrong_state"),
            body={"stage": stage},
        )
        return told.body if told.outcome == "payment_requested" else None

    async def settle(self, held: View, payment: View, *, or_else: str = "") -> View:
        """Let the bank pay; the reservation afterwards."""
        followed = self.log.followed[held["id"]]
        followed.paid_at = followed.paid_at or time.time()
        path, body = f"/sandbox/payments/{payment['payment_id']}", {"outcome": "succeeded"}
        told = await self.ask("POST", path, "paid", body=body)
        if told.body.get("webhook_status") != 200:
            self.unexpected("webhook", str(told.body), ["200"])
            return held
        followed.charged[payment["payment_id"]] = payment["amount"]
        now = await self.look(held)
        expected = [_LEADS_TO[payment["stage"]], *or_else.split()]
        by = due_by(held)
        if by is not None and time.time() >= by:
            expected.append("refunded")
        if now["state"] not in expected:
            self.unexpected(f"paid {payment['stage']} of {held['id']}", now["state"], expected)
        return now

    async def join(self, sku: str) -> Place | None:
        """Stand in line; None when just now there is enough again."""
        told = await self.ask(
            *("POST", f"{self._path}/waitlist", "waiting"),
            answers=or_from("waiting wrong_state", self.log.closes_at, "ended"),
            body={"sku": sku, "quantity": 1},
        )
        if told.outcome != "waiting":
            return None
        place = Place(self.name, sku)
        self.log.line.append(place)
        return place

    async def leave(self, place: Place) -> None:
        """Give the place up."""
        await self.ask("DELETE", f"{self._path}/waitlist?sku={place.sku}", "left")
        place.left = True

    async def places(self) -> list[View]:
        """One's own places in line."""
        told = await self.ask("GET", f"{self._path}/waitlist", "seen")
        return list(told.body.get("places", []))

    async def ranking(self) -> View:
        """Who spends most, and one's own place among them."""
        return (await self.ask("GET", f"{self._path}/rankings/buyers", "seen")).body

    def _changes_end_at(self, held: View) -> float:
        """Until when it may be changed or cancelled."""
        return min(self.log.closes_at, due_by(held) or self.log.closes_at)


def or_from(answers: Answers, at: float | None, more: str) -> Callable[[], str]:
    """These answers, and from then on `more` as well."""

    def now() -> str:
        words = answers() if callable(answers) else answers
        return f"{words} {more}" if at is not None and time.time() >= at else words

    return now


def due_by(held: View) -> float | None:
    """When what is due must have been paid, in seconds since the epoch."""
    return datetime.fromisoformat(held["due"]["by"]).timestamp() if held["due"] else None
