"""A campaign's report counted anew, event by event and in plain Python: slow, obvious, and by nobody's "
"SQL."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tests.stack import Answer, Client

Json = dict[str, Any]
LIVE_OR_SOLD = {"held", "deposit_paid", "confirmed"}


@dataclass
class Log:
    """What a client did in one campaign, and what it was told."""

    campaign: str
    counts: Counter[str] = field(default_factory=Counter)
    visitors: set[str] = field(default_factory=set)
    participants: set[str] = field(default_factory=set)

    async def look(self, client: Client, user: str | None = None, **headers: str) -> None:
        path = f"/v1/campaigns/{self.campaign}"
        answer = await client.call("GET", path, user=user, headers={"User-Agent": "a browser", **headers})
        assert answer.status in (200, 304)
        self.counts["visit"] += 1
        self.visitors.add(user or str(sorted(headers.items())))

    async def watch(self, client: Client, user: str) -> None:
        """Open the event stream, and leave it again."""
        answer = await client.session.get(f"{client.url}/v1/campaigns/{self.campaign}/events")
        assert await answer.content.readline()
        answer.close()
        self.counts["visit"] += 1
        self.visitors.add(user)

    async def reserve(self, client: Client, user: str, **body: Any) -> Answer:
        answer = await client.reserve(self.campaign, user, **body)
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        self.counts["replayed" if replayed else answer.code or "held"] += 1
        self.participants.add(user)
        return answer

    async def join(self, client: Client, user: str, **body: Any) -> Answer:
        answer = await client.join(self.campaign, user, **body)
        self.counts["waitlisted"] += answer.status == 201
        return answer

    async def quote(self, client: Client, user: str, **body: Any) -> None:
        assert (await client.quote(self.campaign, user, **body)).status == 200
        self.counts["quoted"] += 1

    def refused(self) -> dict[str, int]:
        known = {"visit", "quoted", "waitlisted", "held", "replayed"}
        return {code: times for code, times in self.counts.items() if code not in known}


@dataclass
class Life:
    """One reservation, and all that happened to it."""

    user: str
    sku: str
    main_order: str | None
    payable: int
    gifts: Counter[str]
    events: list[tuple[int, str, Json, datetime]]
    charged: list[tuple[str, int, datetime]]
    """Stage, amount, when: of payments that succeeded."""
    refunds: list[tuple[str, str, int]]
    """Reason, status, amount."""

    @property
    def state(self) -> str:
        return str(self.events[-1][2]["state"])

    @property
    def quantity(self) -> int:
        return int(self.events[-1][2]["quantity"])

    @property
    def tier(self) -> str | None:
        return self.events[0][2].get("tier")

    def ever(self, kind: str) -> bool:
        return any(event[1] == kind for event in self.events)

    @property
    def is_order(self) -> bool:
        return self.state == "confirmed"

    @property
    def received(self) -> int:
        return sum(amount for _, amount, _ in self.charged) - sum(amount for *_, amount in self.refunds)

    def units_at(self, at: datetime, states: set[str]) -> int:
        """Units that it had in these states just before `at`."""
        last = [event for event in self.events if event[3] < at]
        return int(last[-1][2]["quantity"]) if last and last[-1][2]["state"] in states else 0


def lives(book: psycopg.Connection, campaign: str) -> list[Life]:
    rows = book.execute(
        "SELECT reservation_id, user_id, sku, main_order_id, price, total, lines FROM orders WHERE campaign "
        "= %s",
        [campaign],
    ).fetchall()
    return [_life(book, *row) for row in rows]


def _life(
    book: psycopg.Connection, name: str, user: str, sku: str, order: str, price: Json, total: int, lines: Any
) -> Life:
    def rows(query: str) -> list[Any]:
        return book.execute(query, [name]).fetchall()

    saved = sum(one["amount"] for one in price["discounts"])
    return Life(
        user,
        sku,
        order,
        price["deposit"] + price["balance"] if price["deposit"] else total - saved,
        Counter({line["sku"]: line["quantity"] for line in lines if line.get("gift")}),
        rows("SELECT version, type, data, at FROM order_events WHERE reservation_id = %s ORDER BY version"),
        rows("SELECT stage, amount, at FROM payments WHERE reservation_id = %s AND status = 'succeeded'"),
        rows("SELECT reason, status, amount FROM refunds WHERE reservation_id = %s"),
    )


def recounted(book: psycopg.Connection, campaign: str, log: Log) -> Json:
    """The report as it should be; without what says when it was made and what the figures mean."""
    found = lives(book, campaign)
    revisions = book.execute(
        "SELECT document, status, changed_at FROM campaign_revisions WHERE campaign = %s ORDER BY revision",
        [campaign],
    ).fetchall()
    document = revisions[-1][0]
    opens_at = datetime.fromisoformat(document["opens_at"])
    orders = [one for one in found if one.is_order]
    gmv = sum(one.payable for one in orders)
    full = {sku: _sold_out(sku, found, revisions) for sku in {offer["sku"] for offer in document["offers"]}}
    after = {sku: at and max(0.0, (at - opens_at).total_seconds()) for sku, at in full.items()}
    refunds = [refund for one in found for refund in one.refunds]
    answered = {what: n for what, n in log.counts.items() if what not in ("visit", "quoted", "waitlisted")}
    report: Json = {
        "summary": {
            "visitors": len(log.visitors),
            "visits": log.counts["visit"],
            "participants": len(log.participants),
            "requests": sum(answered.values()),
            "refused": sum(log.refused().values()),
            "replayed": log.counts["replayed"],
            "quotes": log.counts["quoted"],
            "reservations": len(found),
            "units_reserved": sum(one.quantity for one in found),
            "orders": len(orders),
            "units_sold": sum(one.quantity for one in orders),
            "gmv": gmv,
            "revenue_kept": sum(one.received for one in found),
            "average_order_value": int(gmv / len(orders) + 0.5) if orders else None,
            "expired": sum(one.ever("expired") for one in found),
            "expiry_share": round(sum(one.ever("expired") for one in found) / len(found), 6),
            "sold_out_s": None
            if None in after.values()
            else max(one for one in after.values() if one is not None),
        },
        "refusals": log.refused(),
        "funnel": _funnel(log, found),
        "refunds": {
            "count": len(refunds),
            "amount": sum(amount for *_, amount in refunds),
            "pending": sum(status == "pending" for _, status, _ in refunds),
            "by_reason": {
                reason: {
                    "count": sum(one[0] == reason for one in refunds),
                    "amount": sum(one[2] for one in refunds if one[0] == reason),
                }
                for reason in {one[0] for one in refunds}
            },
        },
        "presale": _presale(found) if document["kind"] == "presale" else None,
        "trade_in": _trade_in(book, document, found) if document["kind"] == "trade_in" else None,
        "gifts": [
            {
                "sku": offer["sku"],
                "gift": gift["sku"],
                "promised": gift["first"],
                "given": sum(
                    one.gifts[gift["sku"]]
                    for one in found
                    if one.sku == offer["sku"] and one.state in ("deposit_paid", "confirmed")
                ),
            }
            for offer in document["offers"]
            for gift in offer.get("gifts", [])
        ],
        "waitlist": {
            "joined": log.counts["waitlisted"],
            "offered": sum(one.ever("offered") for one in found),
            "paid": sum(one.ever("offered") and bool(one.charged) for one in found),
        },
        "offers": [
            {
                "sku": offer["sku"],
                "title": offer.get("title"),
                "price": offer["price"],
                "stock": offer["stock"],
                **_part([one for one in found if one.sku == offer["sku"]]),
                "sell_through": round(
                    sum(one.quantity for one in orders if one.sku == offer["sku"]) / offer["stock"], 6
                ),
                "sold_out_at": _wire(full[offer["sku"]]),
                "sold_out_s": after[offer["sku"]],
            }
            for offer in document["offers"]
        ],
        "tiers": [
            {"tier": tier, **_part([one for one in found if one.tier == tier])}
            for tier in sorted({one.tier for one in found}, key=lambda tier: (tier is None, tier))
        ],
    }
    return report


def _funnel(log: Log, found: list[Life]) -> list[Json]:
    people = {
        "visitors": len(log.visitors),
        "participants": len(log.participants),
        "reserved": len({one.user for one in found}),
        "paid": len({one.user for one in found if one.charged}),
        "confirmed": len({one.user for one in found if one.is_order}),
    }
    counts = list(people.values())
    return [
        {
            "step": step,
            "people": count,
            "of_previous": round(count / before, 6) if before else None,
            "of_first": round(count / counts[0], 6) if number and counts[0] else 1.0,
        }
        for number, ((step, count), before) in enumerate(zip(people.items(), [0, *counts], strict=False))
    ]


def _part(found: list[Life]) -> Json:
    orders = [one for one in found if one.is_order]
    refunds = [refund for one in found for refund in one.refunds]
    return {
        "reservations": len(found),
        "units_reserved": sum(one.quantity for one in found),
        "expired": sum(one.ever("expired") for one in found),
        "orders": len(orders),
        "units_sold": sum(one.quantity for one in orders),
        "gmv": sum(one.payable for one in orders),
        "refunds": len(refunds),
        "refunds_amount": sum(amount for *_, amount in refunds),
    }


def _presale(found: list[Life]) -> Json:
    paid = [one for one in found if any(stage == "deposit" for stage, *_ in one.charged)]
    completed = sum(one.is_order for one in paid)
    lost = [one for one in found if one.state == "forfeited"]
    return {
        "deposits": len(paid),
        "deposits_amount": sum(
            amount for one in found for stage, amount, _ in one.charged if stage == "deposit"
        ),
        "completed": completed,
        "conversion": round(completed / len(paid), 6) if paid else None,
        "forfeits": len(lost),
        "forfeits_amount": sum(one.received for one in lost),
    }


def _trade_in(book: psycopg.Connection, document: Json, found: list[Life]) -> Json:
    condition = document["entitlement"]
    qualified = 0
    for state, lines in book.execute("SELECT state, lines FROM main_orders").fetchall():
        spent = sum(line["amount"] for line in lines if line["sku"] in condition["skus"])
        qualified += state == "paid" and spent >= condition["min_spend"]
    used = sum(one.quantity for one in found if one.state in ("held", "confirmed"))
    back = [one for one in found if one.ever("taken_back")]
    granted = qualified * condition["grants"]
    return {
        "qualified": qualified,
        "units_granted": granted,
        "units_used": used,
        "use": round(used / granted, 6),
        "taken_back": len(back),
        "units_taken_back": sum(one.quantity for one in back),
    }


def _sold_out(sku: str, found: list[Life], revisions: list[Any]) -> datetime | None:
    """The first instant after which as much was taken as there was."""
    instants = {event[3] for one in found for event in one.events} | {at for *_, at in revisions}
    for at in sorted(instants):
        then = at + timedelta(milliseconds=1)
        stock = stock_at(sku, revisions, then)
        taken = sum(one.units_at(then, LIVE_OR_SOLD) for one in found if one.sku == sku)
        if stock and taken >= stock:
            return at
    return None


def stock_at(sku: str, revisions: list[Any], at: datetime) -> int:
    """Stock just before `at`."""
    last = [document for document, _, changed_at in revisions if changed_at < at]
    return sum(offer["stock"] for offer in (last[-1]["offers"] if last else ()) if offer["sku"] == sku)


def check_minutes(book: psycopg.Connection, campaign: str, report: Json) -> None:
    """Every minute says what happened in it, and all of them together what happened."""
    found = lives(book, campaign)
    revisions = book.execute(
        "SELECT document, status, changed_at FROM campaign_revisions WHERE campaign = %s ORDER BY revision",
        [campaign],
    ).fetchall()
    skus = {offer["sku"] for document, *_ in revisions for offer in document["offers"]}
    opens_at = datetime.fromisoformat(revisions[-1][0]["opens_at"])
    for minute in report["minutes"]:
        begins = datetime.fromisoformat(minute["minute"])
        ends = begins + timedelta(minutes=1)
        of_opening = opens_at.replace(second=0, microsecond=0)
        assert minute["from_opening"] == (begins - of_opening).total_seconds() // 60
        made = [one for one in found if begins <= one.events[0][3] < ends]
        assert (minute["reserved"], minute["units_reserved"]) == (
            len(made),
            sum(one.quantity for one in made),
        )
        assert minute["paid"] == sum(begins <= at < ends for one in found for *_, at in one.charged)
        sold = {at: [one for one in found if one.units_at(at, {"confirmed"})] for at in (begins, ends)}
        assert minute["orders"] == len(sold[ends]) - len(sold[begins])
        assert minute["gmv"] == sum(o.payable for o in sold[ends]) - sum(o.payable for o in sold[begins])
        units = [sum(one.units_at(at, {"confirmed"}) for one in found) for at in (begins, ends)]
        assert minute["units_sold"] == units[1] - units[0]
        stock = sum(stock_at(sku, revisions, ends) for sku in skus)
        assert minute["units_left"] == stock - sum(one.units_at(ends, LIVE_OR_SOLD) for one in found)
    for name, whole in (
        ("visits", "visits"),
        ("requests", "requests"),
        ("refused", "refused"),
        ("gmv", "gmv"),
    ):
        assert sum(minute[name] for minute in report["minutes"]) == report["summary"][whole], name
    assert sum(minute["reserved"] for minute in report["minutes"]) == report["summary"]["reservations"]
    for sku, levels in report["levels"].items():
        own = [one for one in found if one.sku == sku]
        for level in levels:
            at = opens_at + timedelta(seconds=level["after_s"])
            assert level["stock"] == stock_at(sku, revisions, at), (sku, level)
            assert level["taken"] == sum(one.units_at(at, LIVE_OR_SOLD) for one in own), (sku, level)
            assert level["sold"] == sum(one.units_at(at, {"confirmed"}) for one in own), (sku, level)


def _wire(at: datetime | None) -> str | None:
    return at and at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
