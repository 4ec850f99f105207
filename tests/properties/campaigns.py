"""Campaigns of every kind, small enough that their limits are met, and the changes made to them."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from reservation.campaign import rfc3339
from tests.properties.clock import START_MS

OPENS, CLOSES, BALANCE_OPENS, BALANCE_CLOSES = (START_MS + s * 1000 for s in (10, 1000, 1100, 2000))
LONG_AFTER = START_MS + 30 * 24 * 3_600_000

rare = st.sampled_from([None] * 7 + [True])
"""For what few campaigns have."""
quota = st.sampled_from([None] * 6 + [1, 2, 3, 4])


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


@st.composite
def offers(draw: st.DrawFn, kind: str, sku: str) -> dict[str, Any]:
    price = draw(st.sampled_from([100, 101, 250]))
    offer: dict[str, Any] = {"sku": sku, "price": price, "stock": draw(st.sampled_from([3, 4, 2, 5, 1]))}
    offer["per_user"] = draw(quota)
    if draw(rare):
        offer["items"] = [{"sku": "lid", "quantity": 2}, {"sku": "box"}]
    if kind == "presale":
        deposit = draw(st.sampled_from([10, 33, 33, 100]))
        offer["deposit"] = deposit
        offer["deposit_worth"] = draw(st.sampled_from([None, None, min(2 * deposit, price), deposit, price]))
        gifts = [{"sku": sku, "first": first} for sku, first in (("mug", 1), ("cap", 2))]
        offer["gifts"] = draw(st.sampled_from([None, gifts[:1], gifts, gifts[1:]]))
    if kind == "trade_in":
        offer["group"] = draw(st.sampled_from([None, "hot", "hot", "new"]))
        offer["per_entitlement"] = draw(quota)
        requires = [{"skus": ["tv"], "min_spend": 50}, {"categories": ["home"]}]
        offer["requires"] = draw(st.sampled_from([None, None, *requires]))
        offer["tiers"] = ["gold"] if draw(rare) else None
    return _without_none(offer)


@st.composite
def documents(draw: st.DrawFn, kind: str, name: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": name, "kind": kind, "currency": "CNY", "hold_seconds": draw(st.sampled_from([40, 5])),
        "opens_at": rfc3339(OPENS), "closes_at": rfc3339(CLOSES), "per_user": draw(quota),
        "tiers": ["gold", "silver"] if draw(rare) else None,
        "waitlist": draw(st.sampled_from([None] * 8 + [True, False])),
        "waitlist_hold_seconds": draw(st.sampled_from([None, 20])),
        "offers": [draw(offers(kind, "phone")), draw(offers(kind, "case"))],
    }  # fmt: skip
    if kind != "trade_in":
        steps = [{"spend": 200, "save": 30}, {"spend": 400, "save": 390}]
        document["spend_and_save"] = draw(st.sampled_from([None, None, steps[:1], steps]))
    if kind == "presale":
        document["balance_opens_at"] = rfc3339(draw(st.sampled_from([BALANCE_OPENS, CLOSES])))
        document["balance_closes_at"] = rfc3339(BALANCE_CLOSES)
        document["deposit_refundable"] = draw(st.sampled_from([None, True, False, False]))
        document["reminder_seconds"] = draw(st.sampled_from([None, [], [100, 30], [500]]))
    if kind == "trade_in":
        conditions = [{"min_spend": 100}, {"min_spend": 50, "categories": ["home"]}, {"skus": ["tv"]}]
        document["entitlement"] = {
            **draw(st.sampled_from(conditions)),
            "grants": draw(st.sampled_from([2, 3, 1])),
        }
        limits = {"hot": {"per_entitlement": 2}, "new": {"per_user": 1}}
        both = {"hot": {"per_entitlement": 1, "per_user": 2}}
        document["groups"] = draw(st.sampled_from([None, limits, both]))
    return _without_none(document)


SCENES = {
    "presale": ("presale",),
    "trade_in": ("trade_in", "trade_in"),
    "flash_sale": ("flash_sale",),
    "all": ("flash_sale", "presale", "trade_in"),
}
"""The campaigns that are on at the same time."""


@st.composite
def scenes(draw: st.DrawFn, scene: str) -> list[dict[str, Any]]:
    return [
        draw(documents(kind, f"{kind.replace('_', '-')}-{number}"))
        for number, kind in enumerate(SCENES[scene], 1)
    ]


def moved(document: dict[str, Any], window: str, seconds: int) -> dict[str, Any]:
    """With one of its windows' edges moved, where it has that."""

    changed = copy.deepcopy(document)
    if window in changed:
        at = datetime.fromisoformat(changed[window]) + timedelta(seconds=seconds)
        changed[window] = at.isoformat().replace("+00:00", "Z")
    return changed


def changed(document: dict[str, Any], what: str, value: Any) -> dict[str, Any]:
    """With something else said in it, where its kind has such a thing; None takes it out."""
    found = copy.deepcopy(document)
    offer = found["offers"][0]
    kind = found["kind"]
    if what == "grants" and kind == "trade_in":
        found["entitlement"]["grants"] = value
    elif what == "min_spend" and kind == "trade_in":
        found["entitlement"]["min_spend"] = value
    elif what == "first" and "gifts" in offer:
        offer["gifts"][0]["first"] = value
    elif what == "gifts" and kind == "presale":
        offer["gifts"] = [{"sku": "pen", "first": value}]
    elif what in ("price", "deposit", "offer.per_user"):
        offer[what.removeprefix("offer.")] = value
    elif what == "offer gone" and len(found["offers"]) > 1:
        del found["offers"][0]
    elif what in ("per_user", "deposit_refundable", "waitlist", "hold_seconds"):
        found[what] = value
    found["offers"] = [_without_none(one) for one in found["offers"]]
    return _without_none(found)
