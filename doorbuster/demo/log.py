"""What shoppers were told: the log that the service is held to at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

View = dict[str, Any]
"""A reservation, a price or a payment, as the service shows it."""


@dataclass
class Followed:
    """A reservation, as far as its shopper knows of it."""

    user: str
    views: list[View]
    """As it was shown, one after the other."""
    charged: dict[str, int] = field(default_factory=dict)
    """By payment id: what the bank took."""
    paid_at: float | None = None
    """When the shopper sent off the first payment."""
    given_up_at: float | None = None
    """When the shopper heard that it is cancelled."""

    @property
    def last(self) -> View:
        return self.views[-1]

    def ever(self, state: str) -> bool:
        return any(view["state"] == state for view in self.views)


@dataclass
class Place:
    """Somebody who stood in line."""

    user: str
    sku: str
    left: bool = False
    served: str | None = None
    """The reservation that it became."""


@dataclass
class Log:
    """All that the shoppers of one campaign were told."""

    campaign: str
    closes_at: float
    """When reservations end, in seconds since the epoch."""
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    """Answers that no contract names for what was asked."""
    followed: dict[str, Followed] = field(default_factory=dict)
    """By id: every reservation that was ever acknowledged."""
    by_key: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """By user and Idempotency-Key: the reservations that it made."""
    quotes: dict[tuple[str, int], View] = field(default_factory=dict)
    """By SKU and quantity: the price that was quoted."""
    line: list[Place] = field(default_factory=list)
    """Who stood in line, in the order in which they were told so."""
    reserve_ms: list[float] = field(default_factory=list)

    def see(self, view: View) -> None:
        """A reservation was shown to its user."""
        followed = self.followed.setdefault(view["id"], Followed(view["user"], []))
        # Answers to what was asked at the same time may come in any order.
        if not followed.views or view["version"] >= followed.last["version"]:
            followed.views.append(view)

    def take_quote(self, sku: str, quantity: int, price: View) -> None:
        if self.quotes.setdefault((sku, quantity), price) != price:
            self.unexpected.append(f"{quantity} of {sku} were quoted at {price}, and before at another price")

    @property
    def paid(self) -> int:
        return sum(1 for one in self.followed.values() if one.charged)
