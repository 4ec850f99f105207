"""What clients were told: kept by them, and held against store and book at the end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from reservation.ids import ReservationId
from reservation.record import Reservation


@dataclass(frozen=True)
class Told:
    """An answer that a client has got: this reservation is in this state."""

    sent_at: float
    at: float
    reservation: Reservation


@dataclass
class Standing:
    """A client's time in line for an offer, as far as the client knows."""

    campaign: str
    sku: str
    user: str
    quantity: int
    asked_at: float
    since: float
    """When its place was first asked for: asking again for as many keeps it."""
    placed_at: float
    left_at: float = float("inf")
    """Asked to leave, or for another place: which may have been refused, and then nothing was left."""
    left: bool = False
    """Whether it was surely left."""


@dataclass
class ClientLog:
    """Everything that all clients asked and were told. Times are seconds since the beginning."""

    asked: dict[ReservationId, tuple[str, str, int]] = field(default_factory=dict)
    """By the id that its key makes: user, SKU and units of everything that was ever asked for."""
    told: list[Told] = field(default_factory=list)
    lines: list[Standing] = field(default_factory=list)
    joined: set[tuple[str, str]] = field(default_factory=set)
    """Campaign and user of all who ever asked to stand in line."""
    ids_of_key: dict[tuple[str, str, str], set[ReservationId]] = field(
        default_factory=lambda: defaultdict(set)
    )
    """By campaign, user and key: what was made under it, as far as clients were told."""

    def waits(self, campaign: str, sku: str, user: str) -> Standing | None:
        """Where this user stands in line, perhaps."""
        own = [one for one in self.lines if (one.campaign, one.sku, one.user) == (campaign, sku, user)]
        return own[-1] if own and not own[-1].left else None

    def leave(self, campaign: str, sku: str, user: str, at: float, *, surely: bool = False) -> None:
        for one in self.lines:
            if (one.campaign, one.sku, one.user) == (campaign, sku, user):
                one.left_at = min(one.left_at, at)
                one.left |= surely
