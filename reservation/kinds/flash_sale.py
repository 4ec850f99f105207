"""Flash sale (限时抢购): a fixed price, a small stock, first come, first served."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reservation.campaign import OFFERS_MAX, CampaignDocument, Offer
from reservation.kinds.kind import Kind


class FlashSaleDocument(CampaignDocument):
    """A flash sale: fixed price, small stock, first come, first served."""

    kind: Literal["flash_sale"]
    offers: Annotated[list[Offer], Field(min_length=1, max_length=OFFERS_MAX)]


class FlashSale(Kind):
    """Reserve, pay in full, done. An unpaid hold expires."""

    name = "flash_sale"
    document = FlashSaleDocument
