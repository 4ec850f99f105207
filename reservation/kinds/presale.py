"""Presale (预售): a deposit now, the balance later."""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from reservation.campaign import (
    OFFERS_MAX,
    BalanceWindow,
    Campaign,
    CampaignDocument,
    Document,
    Instant,
    Money,
    Offer,
    Sku,
    Units,
    ms_of,
)
from reservation.ids import Stage
from reservation.kernel import Claim, optional
from reservation.kinds.kind import Kind, discounts
from reservation.record import GIFT, Price

GIFTS_MAX = 20
REMINDERS_MAX = 10
REMINDER_SECONDS_MAX = 30 * 24 * 3600
REMINDER_SECONDS = (24 * 3600, 3600)


class Gift(Document):
    """For the first so many users who pay a deposit."""

    sku: Sku
    first: Units


class PresaleOffer(Offer):
    """An offer with a deposit. Deposit expansion (定金膨胀): it may count for more than it is."""

    deposit: Money
    deposit_worth: Money | None = None
    """What the deposit counts for against the price; the deposit itself when absent."""
    gifts: Annotated[list[Gift], Field(min_length=1, max_length=GIFTS_MAX)] | None = None

    @property
    def worth(self) -> int:
        return self.deposit_worth or self.deposit

    @model_validator(mode="after")
    def _in_proportion(self) -> Self:
        if not self.deposit <= self.worth <= self.price:
            raise ValueError("deposit must not be above deposit_worth, nor that above price")
        skus = [gift.sku for gift in self.gifts or ()]
        if len(set(skus)) < len(skus):
            raise ValueError("an SKU may be a gift of an offer once")
        return self


class PresaleDocument(CampaignDocument):
    """A presale: its deposit window is from opens_at to closes_at."""

    kind: Literal["presale"]
    balance_opens_at: Instant
    balance_closes_at: Instant
    deposit_refundable: bool | None = None
    """Whether a deposit is given back to who cancels while the deposit window is open; so unless said."""
    reminder_seconds: (
        Annotated[list[Annotated[int, Field(ge=1, le=REMINDER_SECONDS_MAX)]], Field(max_length=REMINDERS_MAX)]
        | None
    ) = None
    """How long before the balance is due who has not paid it is reminded; REMINDER_SECONDS unless said."""
    offers: Annotated[list[PresaleOffer], Field(min_length=1, max_length=OFFERS_MAX)]

    @model_validator(mode="after")
    def _windows_in_order(self) -> Self:
        if self.closes_at > self.balance_opens_at:
            raise ValueError("balance_opens_at must not be before closes_at")
        if self.balance_opens_at >= self.balance_closes_at:
            raise ValueError("balance_opens_at must be before balance_closes_at")
        return self

    def balance_window(self) -> BalanceWindow:
        seconds = REMINDER_SECONDS if self.reminder_seconds is None else self.reminder_seconds
        reminders = sorted({one * 1000 for one in seconds}, reverse=True)
        return BalanceWindow(ms_of(self.balance_opens_at), ms_of(self.balance_closes_at), tuple(reminders))

    def keeps_deposits(self) -> bool:
        return self.deposit_refundable is False


class Presale(Kind):
    """Reserve, pay the deposit within the hold, pay the balance in its window."""

    name = "presale"
    document = PresaleDocument
    stages = (Stage.DEPOSIT, Stage.BALANCE)
    amendable = True

    def price(self, campaign: Campaign, offer: Offer, quantity: int) -> Price:
        found = cast(PresaleOffer, offer)
        total, worth = found.price * quantity, found.worth * quantity
        saved = discounts(campaign, total)
        balance = max(0, total - worth - sum(amount for _, amount in saved))
        return Price(
            campaign.document.currency, found.price, total, found.deposit * quantity, worth, saved, balance
        )

    def gifts(self, offer: Offer) -> tuple[Claim, ...]:
        claims: list[Claim] = []
        for gift in cast(PresaleOffer, offer).gifts or ():
            name = f"{GIFT}{offer.sku}/{gift.sku}"
            # One to a user, or else who comes thrice takes the gifts of three.
            claims.append(Claim(name, 1, gift.first, optional(name)))
            claims.append(Claim(f"{name}@", 1, 1, optional(name)))
        return tuple(claims)
