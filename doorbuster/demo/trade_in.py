"""The trade-in: main orders that entitle to add-ons, those that do not, and those that are taken back."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from doorbuster.demo.checks import check_orders
from doorbuster.demo.log import View
from doorbuster.demo.report import Played, funnel, offers_table, refusals, states
from doorbuster.demo.shopper import Shopper
from doorbuster.demo.stage import Ended, Stage, instant

CAMPAIGN = "tv-trade-in"
OPENS_IN_SECONDS = 1.0
OPEN_SECONDS = 12.0
HOLD_SECONDS = 2
ARRIVALS_SECONDS = 4.0
GRANTS = 2
MIN_SPEND = 300000
ENOUGH, PLENTY, TOO_LITTLE = 500000, 900000, 200000
"""What a main order may come to, in minor units."""


class Mood(StrEnum):
    CONTENT = "content"  # takes a hot offer and another, pays alone or with the main order
    PREMIUM = "premium"  # takes the offer that wants a larger order
    MODEST = "modest"  # would like it, with an order that is not large enough
    GREEDY = "greedy"  # wants more than the order entitles to
    SHORT = "short"  # spent too little
    ELSEWHERE = "elsewhere"  # spent it on something else
    BORROWER = "borrower"  # comes with somebody else's order
    HASTY = "hasty"  # comes before the order is reported, and again
    IDLE = "idle"  # does not pay, and takes something else when it has expired
    RETURNING = "returning"  # cancels the main order when all is paid
    RACING = "racing"  # cancels the main order while reserving
    REDUCING = "reducing"  # gives most of the main order back
    TRIMMING = "trimming"  # gives some of it back, and still qualifies


# Out of 100 owners.
MOODS = {
    Mood.CONTENT: 34,
    Mood.PREMIUM: 8,
    Mood.MODEST: 5,
    Mood.GREEDY: 9,
    Mood.SHORT: 8,
    Mood.ELSEWHERE: 5,
    Mood.BORROWER: 4,
    Mood.HASTY: 4,
    Mood.IDLE: 6,
    Mood.RETURNING: 6,
    Mood.RACING: 4,
    Mood.REDUCING: 4,
    Mood.TRIMMING: 3,
}


def document(owners: int) -> View:
    """A trade-in for so many owners of televisions, which is about to open."""
    plenty = 2 * owners
    return {
        "id": CAMPAIGN,
        "kind": "trade_in",
        "title": "Trade-ins for a new TV",
        "currency": "CNY",
        "opens_at": instant(OPENS_IN_SECONDS),
        "closes_at": instant(OPENS_IN_SECONDS + OPEN_SECONDS),
        "hold_seconds": HOLD_SECONDS,
        "entitlement": {"skus": ["tv-65"], "min_spend": MIN_SPEND, "grants": GRANTS},
        "groups": {"hot": {"per_entitlement": 1, "per_user": 1}},
        "offers": [
            {"sku": "soundbar", "group": "hot", "price": 49900, "stock": max(5, owners // 4)},
            {"sku": "hdmi-cable", "group": "clearance", "price": 900, "stock": plenty},
            {"sku": "wall-mount", "group": "new", "price": 9900, "stock": plenty, "per_entitlement": 1},
            {
                "sku": "console",
                "group": "limited",
                "price": 199900,
                "stock": plenty,
                "requires": {"categories": ["television"], "min_spend": 800000},
            },
        ],
    }


async def play(stage: Stage, owners: int) -> Played:
    """The trade-in, from its creation to its end."""
    await stage.merchant.create(stage.document)
    looker = stage.shopper("looker")
    for sku, quantity in (
        ("soundbar", 1),
        ("hdmi-cable", 1),
        ("hdmi-cable", 2),
        ("wall-mount", 1),
        ("console", 1),
    ):
        await looker.quote(sku, quantity)
    trade_in = _TradeIn(stage)
    moods = stage.dice.choices(list(MOODS), list(MOODS.values()), k=owners)
    async with stage.progress():
        await asyncio.gather(
            *(trade_in.visit(stage.shopper(f"owner-{n}"), f"order-{n}", mood) for n, mood in enumerate(moods))
        )
    ended = await stage.end(lost_orders=trade_in.lost)
    orders = {order_id: await stage.merchant.order(order_id) for order_id in trade_in.grants}
    violations = [*ended.violations, *check_orders(orders, ended.ends, CAMPAIGN, trade_in.grants)]
    return stage.played(_lines(stage, ended, trade_in.lost), violations)


class _TradeIn:
    """What owners, and the shop that knows their main orders, do."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._merchant = stage.merchant
        self.grants: dict[str, int] = {}
        """By main order: the units that it entitles to in the end."""
        self.lost: set[str] = set()
        """Main orders that came to entitle to nothing."""

    async def visit(self, owner: Shopper, order_id: str, mood: Mood) -> None:
        """One owner's visit, and their main order's fate."""
        await self._stage.opening(after_s=ARRIVALS_SECONDS * owner.dice.random())
        await owner.visit()
        if mood is Mood.HASTY:
            await owner.reserve("hdmi-cable", order_id=order_id, answers="not_eligible")
        elsewhere = ("fridge", "kitchen") if mood is Mood.ELSEWHERE else ("tv-65", "television")
        amount = {Mood.SHORT: TOO_LITTLE, Mood.PREMIUM: PLENTY, Mood.ELSEWHERE: PLENTY}.get(mood, ENOUGH)
        await self._report(order_id, owner.name, (*elsewhere, amount))
        if mood in (Mood.SHORT, Mood.ELSEWHERE):
            await owner.reserve("hdmi-cable", order_id=order_id, answers="not_eligible")
            return
        match mood:
            case Mood.BORROWER:
                other = self._stage.shopper(f"{owner.name}-friend")
                await other.visit()
                await other.reserve("hdmi-cable", order_id=order_id, answers="not_eligible")
                await other.reserve("hdmi-cable", answers="not_eligible")
            case Mood.MODEST:
                await owner.reserve("console", order_id=order_id, answers="not_eligible")
            case Mood.PREMIUM:
                await self._take(owner, order_id, "console")
            case Mood.GREEDY:
                await owner.reserve("soundbar", 2, order_id=order_id, answers="quota_exceeded")
                await owner.reserve("hdmi-cable", 3, order_id=order_id, answers="not_eligible")
                await self._take(owner, order_id, "hdmi-cable", 2)
                await owner.reserve("wall-mount", order_id=order_id, answers="not_eligible")
            case Mood.IDLE:
                await self._forget(owner, order_id)
            case Mood.RACING:
                await self._race(owner, order_id)
            case _:
                await self._take(owner, order_id, "soundbar", answers="held sold_out")
                await self._take(owner, order_id, owner.dice.choice(["hdmi-cable", "wall-mount"]))
        await owner.pause(1)
        if mood is Mood.RETURNING:
            await self._cancel(order_id)
            await owner.reserve("hdmi-cable", order_id=order_id, answers="not_eligible")
        if mood is Mood.REDUCING:
            self._lose(order_id)
            await self._merchant.report_order(order_id, owner.name, [("tv-65", "television", TOO_LITTLE)])
            await owner.reserve("hdmi-cable", order_id=order_id, answers="not_eligible")
        if mood is Mood.TRIMMING:
            await self._merchant.report_order(order_id, owner.name, [("tv-65", "television", MIN_SPEND)])

    async def _report(self, order_id: str, user: str, line: tuple[str, str, int]) -> None:
        sku, _, amount = line
        self.grants[order_id] = GRANTS if sku == "tv-65" and amount >= MIN_SPEND else 0
        await self._merchant.report_order(order_id, user, [line])

    async def _take(
        self, owner: Shopper, order_id: str, sku: str, quantity: int = 1, *, answers: str = "held"
    ) -> None:
        """Reserve it, and pay: alone, or with the main order."""
        held = await owner.reserve(sku, quantity, order_id=order_id, answers=answers)
        if held is None:
            return
        await owner.pause(0.5)
        if owner.dice.random() < 0.5:
            await owner.pay(held, "full")
        else:
            await self._merchant.paid_with_order(order_id, held)

    async def _forget(self, owner: Shopper, order_id: str) -> None:
        """What is not paid expires, and entitles to something else again."""
        held = await owner.reserve("hdmi-cable", 2, order_id=order_id)
        if held is not None and (await owner.look_until(held, "expired", 10))["state"] == "expired":
            await self._take(owner, order_id, "hdmi-cable", 2)

    async def _race(self, owner: Shopper, order_id: str) -> None:
        """The order is cancelled while it is used. Whoever is first, nothing may be left of it."""
        reserving = owner.reserve("hdmi-cable", order_id=order_id, answers="held not_eligible")
        await asyncio.gather(reserving, self._cancel(order_id))

    async def _cancel(self, order_id: str) -> None:
        self._lose(order_id)
        await self._merchant.cancel_order(order_id)

    def _lose(self, order_id: str) -> None:
        self.lost.add(order_id)
        self.grants[order_id] = 0


def _lines(stage: Stage, ended: Ended, lost: set[str]) -> list[str]:
    log, became = stage.log, states(ended.ends.values())
    back = [one["state"] for one in ended.ends.values() if one["order_id"] in lost]
    with_order = log.outcomes["paid"] - log.outcomes["payment_requested"]
    found = {
        "main orders": log.outcomes["reported"],
        "granted": len(log.followed),
        "used": became["confirmed"],
        "taken back": back.count("refunded") + back.count("cancelled"),
        "expired": became["expired"],
        "paid alone": log.outcomes["payment_requested"],
        "paid with the order": with_order,
    }
    return [*funnel(found), f"  refused   {refusals(log)}", *offers_table(ended.offers)]
