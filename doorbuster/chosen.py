"""Which campaigns a command is about."""

from __future__ import annotations

from reservation.catalog import Catalog
from settlement.book import Book


async def chosen_campaigns(catalog: Catalog, book: Book, campaign: str | None) -> list[str] | None:
    """The one that was named, or all that either store knows; None when there is none of that name."""
    await catalog.refresh()
    known = {one.id for one in catalog.all()} | set(await book.campaign_ids())
    if campaign is None:
        return sorted(known)
    return [campaign] if campaign in known else None
