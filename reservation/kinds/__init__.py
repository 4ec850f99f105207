"""The kinds of campaign. A kind is one small pure module, registered here.

A kind turns a request into claims and a price, and says which payment leads to which state. It
knows no store, no HTTP and no clock.
"""

from __future__ import annotations

from typing import Protocol

from reservation.campaign import Campaign, CampaignDocument, Offer
from reservation.ids import Stage
from reservation.kernel import Claim
from reservation.kinds.flash_sale import FlashSale
from reservation.record import Price, Reservation, State


class Kind(Protocol):
    """What a campaign kind decides."""

    @property
    def name(self) -> str: ...

    @property
    def document(self) -> type[CampaignDocument]:
        """The kind's campaign document."""
        ...

    def claims(self, campaign: Campaign, offer: Offer, quantity: int) -> tuple[Claim, ...]:
        """What a reservation of `quantity` takes, in the order in which it is refused."""
        ...

    def price(self, campaign: Campaign, offer: Offer, quantity: int) -> Price: ...

    def due(self, reservation: Reservation) -> tuple[Stage, int] | None:
        """The payment that the reservation waits for, in minor units, or None."""
        ...

    def paid(self, stage: Stage) -> State:
        """The state that a payment of this stage leads to."""
        ...

    def cancellable(self, state: State) -> bool:
        """Whether the shopper may still give the reservation up."""
        ...


KINDS: dict[str, Kind] = {kind.name: kind for kind in (FlashSale(),)}
