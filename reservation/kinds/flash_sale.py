"""Flash sale (限时抢购): a fixed price, a small stock, first come, first served."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reservation.campaign import OFFERS_MAX, Campaign, CampaignDocument, Offer, stock_counter
from reservation.ids import Stage
from reservation.kernel import Claim
from reservation.outcomes import Outcome
from reservation.record import Price, Reservation, State


class FlashSaleDocument(CampaignDocument):
    """A flash sale: fixed price, small stock, first come, first served."""

    kind: Literal["flash_sale"]
    offers: Annotated[list[Offer], Field(min_length=1, max_length=OFFERS_MAX)]


class FlashSale:
    """Reserve, pay in full, done. An unpaid hold expires."""

    name = "flash_sale"
    document: type[CampaignDocument] = FlashSaleDocument

    def claims(self, campaign: Campaign, offer: Offer, quantity: int) -> tuple[Claim, ...]:
        return quota_claims(campaign, offer, quantity) + stock_claims(offer, quantity)

    def price(self, campaign: Campaign, offer: Offer, quantity: int) -> Price:
        return Price(campaign.document.currency, offer.price, offer.price * quantity)

    def due(self, reservation: Reservation) -> tuple[Stage, int] | None:
        if reservation.state is State.HELD:
            return Stage.FULL, reservation.facts.price.total
        return None

    def paid(self, stage: Stage) -> State:
        return State.CONFIRMED

    def cancellable(self, state: State) -> bool:
        return state is State.HELD


def quota_claims(campaign: Campaign, offer: Offer, quantity: int) -> tuple[Claim, ...]:
    """The user's quotas: of the campaign, and of the SKU."""
    per_user = campaign.document.per_user
    claims = []
    if per_user is not None:
        claims.append(Claim("quota@", quantity, per_user, Outcome.QUOTA_EXCEEDED))
    if offer.per_user is not None:
        claims.append(Claim(f"quota/{offer.sku}@", quantity, offer.per_user, Outcome.QUOTA_EXCEEDED))
    return tuple(claims)


def stock_claims(offer: Offer, quantity: int) -> tuple[Claim, ...]:
    """The offer's stock, by the store's own cap: it moves while the sale runs."""
    return (Claim(stock_counter(offer.sku), quantity, None, Outcome.SOLD_OUT),)
