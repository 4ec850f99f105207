"""The campaigns that load tests sell: one of each kind. Pure: no Locust in here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from loadtests.scenarios import Goods, Windows

HOT, PLAIN = "phone-hot", "phone-plain"
MAIN_PRODUCT = "tv-load-test"
"""A load test's own, so that its main orders entitle nobody to anything of yours."""


def sale_document(
    campaign: str, kind: str, goods: Goods, windows: Windows, begins_at: datetime
) -> dict[str, Any]:
    """A campaign whose windows count from `begins_at`."""

    def at(seconds: int) -> str:
        return (begins_at + timedelta(seconds=seconds)).isoformat()

    document: dict[str, Any] = {
        "id": campaign,
        "kind": kind,
        "title": "Load test",
        "currency": "CNY",
        "opens_at": at(windows.opens),
        "closes_at": at(windows.closes),
        "hold_seconds": goods.hold_seconds,
        "per_user": goods.per_user,
        "offers": [{"sku": HOT, "price": 399_900, "list_price": 599_900, "stock": goods.stock}],
    }
    if kind == "presale" and windows.balance_opens is not None and windows.balance_closes is not None:
        document |= {
            "balance_opens_at": at(windows.balance_opens),
            "balance_closes_at": at(windows.balance_closes),
            "spend_and_save": [{"spend": 500_000, "save": 50_000}],
        }
        gift = {"sku": "earbuds", "first": max(1, goods.stock // 10)}
        document["offers"][0] |= {"deposit": 10_000, "deposit_worth": 20_000, "gifts": [gift]}
    if kind == "trade_in":
        document["entitlement"] = {"skus": [MAIN_PRODUCT], "min_spend": 300_000, "grants": 2}
        plain = {"sku": PLAIN, "price": 9_900, "stock": goods.stock, "per_entitlement": 1}
        document["offers"] = [
            {"sku": HOT, "group": "hot", "price": 49_900, "stock": max(1, goods.stock // 5)},
            {**plain, "group": "clearance"},
        ]
        document["groups"] = {"hot": {"per_entitlement": 1, "per_user": 2}}
    return document
