"""What a kind of campaign decides, and the usual way to decide it."""

from __future__ import annotations

from collections.abc import Mapping

from reservation.campaign import Campaign, CampaignDocument, Offer, stock_counter
from reservation.ids import Stage
from reservation.kernel import Claim
from reservation.main_order import MainOrder
from reservation.outcomes import Outcome
from reservation.record import Price


class Kind:
    """A kind of campaign: from a request to claims and a price, and to whom it is open.

    Pure: it knows no store, no HTTP and no clock. A kind overrides what it does otherwise.
    """

    name: str
    document: type[CampaignDocument]
    """The kind's campaign document."""
    stages: tuple[Stage, ...] = (Stage.FULL,)
    """The payments that a reservation takes, in order. After the last it is confirmed."""
    amendable = False
    """Whether a shopper may change the quantity, and cancel after the first payment, while the campaign
    takes reservations."""
    takes_orders = False
    """Whether a reservation is made to a main order."""

    def claims(
        self, campaign: Campaign, offer: Offer, quantity: int, order_id: str | None
    ) -> tuple[Claim, ...]:
        """What a reservation of `quantity` takes, in the order in which it is refused."""
        return quota_claims(campaign, offer, quantity) + stock_claims(offer, quantity)

    def gifts(self, offer: Offer) -> tuple[Claim, ...]:
        """What the first payment takes besides, as far as there is some."""
        return ()

    def price(self, campaign: Campaign, offer: Offer, quantity: int) -> Price:
        total = offer.price * quantity
        return Price(campaign.document.currency, offer.price, total, discounts=discounts(campaign, total))

    def ineligible(
        self, campaign: Campaign, offer: Offer, tier: str | None, order: MainOrder | None
    ) -> str | None:
        """Why this user may not take part, as a refusal's `reason` says it; None when they may."""
        return wrong_tier(campaign.tiers, tier)

    def grants(self, campaign: Campaign, order: MainOrder) -> Mapping[str, int]:
        """The caps that a main order grants: counter -> units."""
        return {}


def wrong_tier(tiers: frozenset[str] | list[str] | None, tier: str | None) -> str | None:
    return None if tiers is None or tier in tiers else "wrong_tier"


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


def discounts(campaign: Campaign, total: int) -> tuple[tuple[str, int], ...]:
    """Spend-and-save: the best step that `total` reaches, once."""
    steps = campaign.document.spend_and_save or ()
    saved = max((step.save for step in steps if step.spend <= total), default=0)
    return (("spend_and_save", saved),) if saved else ()
