"""A copy of a campaign to rehearse with: another id and title, windows moved to now, all else is the same."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

ID_CHARS_MAX = 64
TITLE_CHARS_MAX = 200
WINDOWS = ("warm_up_at", "opens_at", "closes_at", "balance_opens_at", "balance_closes_at")
DESIGNATED = "rehearsal"
"""The SKU of a copy's main orders, which spend the least there is: what is reported here entitles nobody
elsewhere, but where any order does."""
PAID_AT = "9999-01-01T00:00:00Z"
"""When they are paid: after every campaign, so that no report counts them, even where any order entitles."""

Document = dict[str, Any]


def copy_id(campaign: str, run: str, step: int) -> str:
    """An id that no other campaign has, and that says what it is a copy of."""
    tail = f"-{run}-{step}"
    return "rehearsal-" + campaign[: ID_CHARS_MAX - len("rehearsal-") - len(tail)] + tail


def sandbox_copy(document: Document, name: str, opens_at: datetime, open_seconds: float) -> Document:
    """The campaign under another name, opening at `opens_at`, and open for `open_seconds` at least.

    All windows keep their distances, unless the campaign is not open for long enough: then what comes after
    its closing comes so much later.
    """
    # Whoever lists campaigns sees the copies, too.
    title = f"Rehearsal: {document.get('title') or document['id']}"[:TITLE_CHARS_MAX]
    made = copy.deepcopy(document) | {"id": name, "title": title}
    instants = {window: datetime.fromisoformat(made[window]) for window in WINDOWS if made.get(window)}
    moved = opens_at - instants["opens_at"]
    short = timedelta(seconds=open_seconds) - (instants["closes_at"] - instants["opens_at"])
    later = max(timedelta(0), short)
    for window, at in instants.items():
        shift = moved if window in ("warm_up_at", "opens_at") else moved + later
        made[window] = (at + shift).isoformat()
    for condition in _conditions(made):
        condition.pop("categories", None)
        condition |= {"skus": [DESIGNATED], "min_spend": 0}
    return made


def main_order(order_id: str, user: str) -> Document:
    """A paid main order that meets every condition of a copied trade-in."""
    line = {"sku": DESIGNATED, "category": DESIGNATED, "amount": 1}
    return {"order_id": order_id, "user": user, "lines": [line], "paid_at": PAID_AT}


def _conditions(document: Document) -> list[Document]:
    """What main orders must meet: for the campaign, and for an offer of it."""
    found = [document.get("entitlement"), *(offer.get("requires") for offer in document["offers"])]
    return [one for one in found if one]


def wanted(document: Document) -> list[tuple[str, str | None]]:
    """What shoppers ask for, in turn: each SKU, and the tier that may have it. Raises ValueError."""
    found: list[tuple[str, str | None]] = []
    for offer in document["offers"]:
        limits = [set(place["tiers"]) for place in (document, offer) if place.get("tiers")]
        common = set.intersection(*limits) if limits else set()
        if not limits:
            found.append((offer["sku"], None))
        elif common:
            found.append((offer["sku"], min(common)))
    if not found:
        raise ValueError("no tier may have any of its offers, so there is nothing to rehearse")
    return found
