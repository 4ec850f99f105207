"""The clients' own log: every request, when it was sent, and what came back. Nothing else judges a round."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

MALFUNCTIONS = frozenset({500, 501, 502, 504, 505})
"""Answers that no fault excuses. A 503 says when to come back."""


@dataclass(slots=True)
class Try:
    """One request, and what came back."""

    what: str
    """reserve, replay, ask to pay, cancel, wait; report order, cancel order."""
    campaign: str
    user: str
    key: str
    """The idempotency key of the reservation that it is about, or the main order's id."""
    sku: str
    quantity: int
    sent_at: float
    """All times: time.monotonic()."""
    ended_at: float = 0.0
    status: int | None = None
    """None: no answer, so nobody knows what became of it."""
    code: str | None = None
    reservation: str | None = None
    state: str | None = None
    created_at: str | None = None
    error: str | None = None
    order: str | None = None
    """The main order that it is about, or that it is a trade-in to."""

    @property
    def outcome(self) -> str:
        if self.status is None:
            return "unknown"
        if self.status < 300:
            return "acknowledged"
        return "failed" if self.status >= 500 else "refused"


@dataclass(slots=True)
class Told:
    """What one shopper was told of one key."""

    campaign: str
    user: str
    key: str
    sku: str
    quantity: int
    reservations: Counter[str] = field(default_factory=Counter)
    """Ids, by how often each was told."""
    made_at: Counter[str] = field(default_factory=Counter)
    """Times of creation, likewise."""
    first_at: float = 0.0
    """When it was acknowledged first, and last."""
    last_at: float = 0.0
    order: str | None = None
    """The main order that it is a trade-in to."""

    @property
    def id(self) -> str:
        return next(iter(self.reservations))


class ClientLog:
    """Everything that was asked in a round."""

    def __init__(self) -> None:
        self.tries: list[Try] = []
        self.epoch = time.time() - time.monotonic()
        """What to add to a time for what a clock on the wall showed."""

    def begin(
        self, what: str, campaign: str, user: str, key: str, sku: str, quantity: int, order: str | None
    ) -> Try:
        one = Try(what, campaign, user, key, sku, quantity, time.monotonic(), order=order)
        self.tries.append(one)
        return one

    def acknowledged(self) -> dict[tuple[str, str, str], Told]:
        """By campaign, user and key: those who were told that they have a reservation."""
        found: dict[tuple[str, str, str], Told] = {}
        for one in self.tries:
            if one.what in ("reserve", "replay") and one.status == 201 and one.reservation:
                name = (one.campaign, one.user, one.key)
                told = found.get(name)
                if told is None:
                    told = found[name] = Told(
                        *name, one.sku, one.quantity, first_at=one.ended_at, order=one.order
                    )
                told.reservations[one.reservation] += 1
                told.made_at[str(one.created_at)] += 1
                told.first_at = min(told.first_at, one.ended_at)
                told.last_at = max(told.last_at, one.ended_at)
        return found

    def cancelled(self) -> dict[str, float]:
        """By reservation id: when it was first acknowledged that it is cancelled."""
        found: dict[str, float] = {}
        for one in self.tries:
            if one.what == "cancel" and one.status == 200 and one.reservation and one.state == "cancelled":
                found.setdefault(one.reservation, one.ended_at)
        return found

    def orders(self, what: str) -> dict[str, float]:
        """By id of a main order: when it was first acknowledged that it is reported, or cancelled."""
        found: dict[str, float] = {}
        for one in self.tries:
            if one.what == what and one.status in (200, 201) and one.order is not None:
                found.setdefault(one.order, one.ended_at)
        return found

    def malfunctions(self) -> list[str]:
        return [
            f"{one.what} {one.key}: {one.status} {one.code}"
            for one in self.tries
            if one.status in MALFUNCTIONS
        ]

    def outcomes(self) -> Counter[str]:
        return Counter(one.outcome for one in self.tries)

    def unknown(self) -> Counter[str]:
        """Why there was no answer."""
        return Counter(str(one.error) for one in self.tries if one.status is None)

    def first_acknowledged_after(self, at: float) -> float | None:
        """When the first reservation was acknowledged that was sent for after this."""
        times = [
            one.ended_at
            for one in self.tries
            if one.what == "reserve" and one.status == 201 and one.ended_at >= at
        ]
        return min(times, default=None)

    def to_json(self) -> Iterator[dict[str, Any]]:
        for one in self.tries:
            yield asdict(one)
