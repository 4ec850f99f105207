"""A campaign's facts, made up: what there is to say, and names that mean harm."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from settlement.report.facts import Became, Change, Facts, Refunds

OPENS = datetime(2026, 11, 11, tzinfo=UTC)
HARM = "<script>alert('双十一')</script>"
FORMULA = "=HYPERLINK(1)"


def document(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": "singles-day",
        "kind": "presale",
        "title": HARM,
        "currency": "CNY",
        "opens_at": OPENS.isoformat(),
        "closes_at": (OPENS + timedelta(hours=1)).isoformat(),
        "offers": [
            {
                "sku": "phone",
                "title": FORMULA,
                "price": 5000,
                "stock": 10,
                "gifts": [{"sku": "case", "first": 3}],
            },
            {"sku": "tablet", "price": 900, "stock": 5},
        ],
    }
    return found | changes


def minute(number: int) -> datetime:
    return OPENS + timedelta(minutes=number)


def facts(**changes: Any) -> Facts:
    """A presale of an hour, of which all is known."""
    phone = Became(20, 24, 15, 9, 10, 45_000, 46_500, 3, 2, 1, 15, 1_500, 9, 4, 400, 10, 0, 0)
    stocked = {("phone", minute(-5)): Change(stock=10), ("tablet", minute(-5)): Change(stock=5)}
    sold = {
        ("phone", minute(0)): Change(0, 10, 4, 4, 20_000),
        ("phone", minute(2)): Change(0, 0, 6, 5, 25_000),
        ("tablet", minute(1)): Change(0, 1, 0, 0, 0),
    }
    steps: dict[str, dict[datetime, Change]] = {"phone": {}, "tablet": {}}
    by_minute: dict[datetime, Change] = {}
    for (sku, at), change in {**stocked, **sold}.items():
        steps[sku][at + timedelta(minutes=1)] = change
        by_minute.setdefault(at, Change()).add(change)
    found = Facts(
        document=document(),
        status="running",
        as_of=OPENS + timedelta(hours=9),
        visitors=1_000,
        participants=400,
        traffic={
            (minute(-1), "visit"): 900,
            (minute(0), "visit"): 800,
            (minute(0), "held"): 20,
            (minute(0), "sold_out"): 370,
            (minute(1), "quota_exceeded"): 7,
            (minute(1), "replayed"): 3,
            (minute(1), "waitlisted"): 6,
            (minute(1), "quoted"): 2,
        },
        became={("phone", None): phone, ("tablet", FORMULA): Became(1, 1)},
        reservers=18,
        payers=14,
        buyers=9,
        first_at=OPENS + timedelta(seconds=1),
        refunds=[
            Refunds("phone", None, "cancelled", "succeeded", 2, 200),
            Refunds("phone", None, "amended", "pending", 1, 100),
        ],
        gifts={("phone", "case"): 3},
        main_orders=None,
        minutes={minute(0): (20, 24, 4), minute(2): (1, 1, 11)},
        changes=by_minute,
        steps=steps,
        sold_out={"phone": OPENS + timedelta(seconds=83)},
    )
    return replace(found, **changes)
