"""A campaign: its document as merchants write it, and what follows from it at a given time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from reservation.ids import CAMPAIGN_ID
from reservation.text import has_control_characters

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
MONEY_MAX = 10**12
UNITS_MAX = 10**9
OFFERS_MAX = 1_000
STEPS_MAX = 20
ITEMS_MAX = 50
HOLD_SECONDS_MAX = 7 * 24 * 3600


def _printable(text: str) -> str:
    if has_control_characters(text):
        raise ValueError("must not contain control characters")
    return text


def no_path(name: str) -> str:
    """For names that are a part of an address."""
    if name in (".", ".."):
        raise ValueError("must not be . or ..")
    return name


def _rfc3339(found: object) -> datetime:
    # By hand, since the validator itself takes Unix times in quotes too.
    try:
        if isinstance(found, str) and _RFC3339.fullmatch(found):
            return datetime.fromisoformat(found.upper())
    except ValueError:  # the 30th of February
        pass
    raise ValueError("must be a time like 2026-11-04T12:00:00Z")


def _utc(at: datetime) -> datetime:
    try:
        at = at.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999") from None
    return at.replace(microsecond=at.microsecond // 1000 * 1000)  # the store's clock counts milliseconds


def ms_of(at: datetime) -> int:
    """Milliseconds since the epoch."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def instant_of(ms: float) -> datetime:
    """The instant of so many milliseconds since the epoch, in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def rfc3339(ms: int) -> str:
    """The instant as the wire writes it: UTC, with milliseconds."""
    return instant_of(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
CampaignId = Annotated[str, Field(pattern=rf"^{CAMPAIGN_ID}$")]
Sku = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$"), AfterValidator(no_path)]
Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339),
    AfterValidator(_utc),
    PlainSerializer(lambda at: rfc3339(ms_of(at)), when_used="json"),
]
Money = Annotated[int, Field(ge=1, le=MONEY_MAX)]
Units = Annotated[int, Field(ge=1, le=UNITS_MAX)]
Tiers = Annotated[list[Text], Field(min_length=1, max_length=100)]


class Document(BaseModel):
    """A strict document: unknown fields are refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Item(Document):
    """A part of a bundle: so many of a SKU in each unit."""

    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=1_000)] = 1


class Offer(Document):
    """One SKU inside a campaign, or a bundle of several sold as one."""

    sku: Sku
    title: Text | None = None
    price: Money
    list_price: Money | None = None
    stock: Annotated[int, Field(ge=0, le=UNITS_MAX)]
    per_user: Units | None = None
    items: Annotated[list[Item], Field(min_length=1, max_length=ITEMS_MAX)] | None = None

    @model_validator(mode="after")
    def _items_once(self) -> Self:
        skus = [item.sku for item in self.items or ()]
        if len(set(skus)) < len(skus):
            raise ValueError("an SKU may stand in a bundle once")
        return self


class SpendAndSave(Document):
    """满减: who spends so much saves so much, in minor units."""

    spend: Money
    save: Money

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.save >= self.spend:
            raise ValueError("save must be less than spend")
        return self


class BalanceWindow(NamedTuple):
    """When the balance of a presale may be paid, and how long before its end who has not is reminded."""

    opens_at_ms: int
    closes_at_ms: int
    reminders_ms: tuple[int, ...]


class Status(StrEnum):
    """What an operator has said of a campaign, whatever its windows."""

    RUNNING = "running"
    PAUSED = "paused"
    CLOSED = "closed"


class Phase(StrEnum):
    """Where a campaign is in its life."""

    SCHEDULED = "scheduled"
    WARM_UP = "warm_up"
    OPEN = "open"
    BETWEEN = "between"
    BALANCE = "balance"
    CLOSED = "closed"
    PAUSED = "paused"


class CampaignDocument(Document):
    """What every kind of campaign has. A kind adds its own fields in kinds/."""

    id: CampaignId
    kind: str
    title: Text | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    warm_up_at: Instant | None = None
    opens_at: Instant
    closes_at: Instant
    hold_seconds: Annotated[int, Field(ge=1, le=HOLD_SECONDS_MAX)] = 900
    per_user: Units | None = None
    tiers: Tiers | None = None
    spend_and_save: Annotated[list[SpendAndSave], Field(min_length=1, max_length=STEPS_MAX)] | None = None
    waitlist: bool | None = None
    """Whether one may stand in line for what is sold out; so unless it is said that not."""
    waitlist_hold_seconds: Annotated[int, Field(ge=1, le=HOLD_SECONDS_MAX)] | None = None
    offers: Annotated[list[Any], Field(min_length=1, max_length=OFFERS_MAX)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warm_up_at is not None and self.warm_up_at > self.opens_at:
            raise ValueError("warm_up_at must not be after opens_at")
        if self.opens_at >= self.closes_at:
            raise ValueError("opens_at must be before closes_at")
        skus = [offer.sku for offer in self.offers]
        twice = sorted({sku for sku in skus if skus.count(sku) > 1})
        if twice:
            raise ValueError(f"an SKU may stand in a campaign once: {', '.join(twice)}")
        return self

    def balance_window(self) -> BalanceWindow | None:
        """For kinds that are paid in two parts."""
        return None

    def keeps_deposits(self) -> bool:
        """Whether who gives up what a deposit was paid for loses the deposit."""
        return False

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)


class Campaign:
    """A campaign as of one revision: its document, its status, and what is read off them often."""

    def __init__(self, document: CampaignDocument, revision: int, status: Status, changed_at_ms: int) -> None:
        self.document = document
        self.revision = revision
        self.status = status
        self.changed_at_ms = changed_at_ms
        self.id = document.id
        self.kind = document.kind
        self.opens_at_ms = ms_of(document.opens_at)
        self.closes_at_ms = ms_of(document.closes_at)
        self.warm_up_at_ms = ms_of(document.warm_up_at) if document.warm_up_at else None
        self.hold_ms = document.hold_seconds * 1000
        self.waitlist_hold_ms = (document.waitlist_hold_seconds or document.hold_seconds) * 1000
        self.balance = document.balance_window()
        self.tiers = frozenset(document.tiers) if document.tiers else None
        self.offers: dict[str, Offer] = {offer.sku: offer for offer in document.offers}

    @property
    def ends_at_ms(self) -> int:
        """When its last payment is due: from then on the campaign is over for everybody."""
        return self.balance.closes_at_ms if self.balance else self.closes_at_ms + self.hold_ms

    def takes_no_more(self, now_ms: int) -> bool:
        """Whether no reservation will be made in it any more."""
        return self.status is Status.CLOSED or now_ms >= self.closes_at_ms

    def phase(self, now_ms: int) -> Phase:
        """The phase at an instant of the store's clock."""
        closes_at_ms = self.balance.closes_at_ms if self.balance else self.closes_at_ms
        if self.status is Status.CLOSED or now_ms >= closes_at_ms:
            return Phase.CLOSED
        if self.status is Status.PAUSED:
            return Phase.PAUSED
        if self.balance and now_ms >= self.balance.opens_at_ms:
            return Phase.BALANCE
        if now_ms >= self.closes_at_ms:
            return Phase.BETWEEN
        if now_ms >= self.opens_at_ms:
            return Phase.OPEN
        if self.warm_up_at_ms is not None and now_ms >= self.warm_up_at_ms:
            return Phase.WARM_UP
        return Phase.SCHEDULED


def stock_counter(sku: str) -> str:
    """The counter of an offer's stock. Its cap is kept in the store."""
    return f"stock/{sku}"
