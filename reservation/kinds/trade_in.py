"""Trade-in (换购): add-on offers at a special price, unlocked by a paid main order."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, cast

from pydantic import Field

from reservation.campaign import (
    MONEY_MAX,
    OFFERS_MAX,
    Campaign,
    CampaignDocument,
    Document,
    Offer,
    Sku,
    Text,
    Tiers,
    Units,
)
from reservation.kernel import Claim
from reservation.kinds.kind import Kind, quota_claims, stock_claims, wrong_tier
from reservation.main_order import MainOrder
from reservation.outcomes import Outcome

DESIGNATED_MAX = 1_000


class Group(StrEnum):
    """What sort of trade-in an offer is."""

    HOT = "hot"
    NEW = "new"
    LIMITED = "limited"
    CLEARANCE = "clearance"


class Condition(Document):
    """What a main order must have bought: designated SKUs or categories, or anything, for so much."""

    skus: Annotated[list[Sku], Field(min_length=1, max_length=DESIGNATED_MAX)] | None = None
    categories: Annotated[list[Text], Field(min_length=1, max_length=DESIGNATED_MAX)] | None = None
    min_spend: Annotated[int, Field(ge=0, le=MONEY_MAX)] = 0

    def is_met_by(self, order: MainOrder) -> bool:
        spent = order.spent_on(self.skus, self.categories)
        return spent > 0 and spent >= self.min_spend


class Entitlement(Condition):
    """The right to `grants` units that each order which meets the condition has."""

    grants: Units


class GroupLimits(Document):
    """How many units of a group one order, and one user, may take."""

    per_entitlement: Units | None = None
    per_user: Units | None = None


class TradeInOffer(Offer):
    """An add-on, with limits and conditions of its own where it has some."""

    group: Group | None = None
    per_entitlement: Units | None = None
    """Units of this offer that one order may take."""
    requires: Condition | None = None
    """What an order must meet for this offer, besides the campaign's condition."""
    tiers: Tiers | None = None


class TradeInDocument(CampaignDocument):
    """A trade-in: who has a qualifying order may take add-ons."""

    kind: Literal["trade_in"]
    entitlement: Entitlement
    groups: dict[Group, GroupLimits] | None = None
    offers: Annotated[list[TradeInOffer], Field(min_length=1, max_length=OFFERS_MAX)]


class TradeIn(Kind):
    """Reserve to a main order, pay with it or alone. What the order loses, its trade-ins lose."""

    name = "trade_in"
    document = TradeInDocument
    takes_orders = True

    def claims(
        self, campaign: Campaign, offer: Offer, quantity: int, order_id: str | None
    ) -> tuple[Claim, ...]:
        document, found = cast(TradeInDocument, campaign.document), cast(TradeInOffer, offer)
        claims = [Claim(f"entitlement:{order_id}", quantity, None, Outcome.NOT_ELIGIBLE)]
        if found.requires is not None:
            claims.append(Claim(_special(found, order_id), quantity, None, Outcome.NOT_ELIGIBLE))
        if found.per_entitlement is not None:
            claims.append(_quota(f"order/{found.sku}:{order_id}", quantity, found.per_entitlement))
        limits = (document.groups or {}).get(found.group) if found.group else None
        if limits is not None and limits.per_entitlement is not None:
            claims.append(_quota(f"order/{found.group}/:{order_id}", quantity, limits.per_entitlement))
        if limits is not None and limits.per_user is not None:
            claims.append(_quota(f"group/{found.group}@", quantity, limits.per_user))
        return (*claims, *quota_claims(campaign, offer, quantity), *stock_claims(offer, quantity))

    def ineligible(
        self, campaign: Campaign, offer: Offer, tier: str | None, order: MainOrder | None
    ) -> str | None:
        document, found = cast(TradeInDocument, campaign.document), cast(TradeInOffer, offer)
        why = wrong_tier(campaign.tiers, tier) or wrong_tier(found.tiers, tier)
        if why is not None:
            return why
        conditions = [document.entitlement, *([found.requires] if found.requires else [])]
        if order is None or not all(condition.is_met_by(order) for condition in conditions):
            return "no_qualifying_order"
        return None

    def grants(self, campaign: Campaign, order: MainOrder) -> Mapping[str, int]:
        document = cast(TradeInDocument, campaign.document)
        units = document.entitlement.grants if document.entitlement.is_met_by(order) else 0
        caps = {f"entitlement:{order.id}": units}
        for offer in document.offers:
            if offer.requires is not None:
                caps[_special(offer, order.id)] = units if offer.requires.is_met_by(order) else 0
        return caps


def _special(offer: TradeInOffer, order_id: str | None) -> str:
    return f"entitlement/{offer.sku}:{order_id}"


def _quota(counter: str, quantity: int, cap: int) -> Claim:
    return Claim(counter, quantity, cap, Outcome.QUOTA_EXCEEDED)
