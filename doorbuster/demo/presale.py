"""The presale: a deposit window, a gap and a balance window of seconds each, and a line for what sold out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from doorbuster.demo.checks import (
    Violation,
    check_gifts,
    check_line,
    check_ranking,
    gifts_of,
    spent,
)
from doorbuster.demo.log import Log, Place, View
from doorbuster.demo.report import Played, figures, funnel, offers_table, refusals, states
from doorbuster.demo.shopper import Shopper, or_from
from doorbuster.demo.stage import Ended, Stage, come_true, instant, until
from doorbuster.money import money

CAMPAIGN = "singles-day-phones"
OPENS_IN_SECONDS = 1.0
DEPOSIT_SECONDS = 9.0
GAP_SECONDS = 2.0
BALANCE_SECONDS = 6.0
HOLD_SECONDS = 2
FIRST_WAVE_SECONDS = 2.0
SECOND_WAVE_SECONDS = (4.5, 5.5)
"""After the opening: when whoever changes their mind has done so, and deposits are still taken."""
EARLY_SHARE = 0.1
EXTRAS_SHARE = 0.3
POLL_SECONDS = 0.2


class Mood(StrEnum):
    STEADY = "steady"  # deposit, balance, done
    MORE = "more"  # one, then two: the difference is charged
    LESS = "less"  # two, then one: the difference is given back
    UNDECIDED = "undecided"  # one, then two, and does not pay the difference in time
    FICKLE = "fickle"  # pays the deposit and cancels
    IDLE = "idle"  # never pays the deposit
    TARDY = "tardy"  # pays the deposit when the hold is over
    FORGETFUL = "forgetful"  # never pays the balance
    LATE = "late"  # pays the balance when the window is over


# Out of 100 buyers.
MOODS = {
    Mood.STEADY: 38,
    Mood.MORE: 12,
    Mood.LESS: 10,
    Mood.UNDECIDED: 6,
    Mood.FICKLE: 10,
    Mood.IDLE: 6,
    Mood.TARDY: 5,
    Mood.FORGETFUL: 7,
    Mood.LATE: 6,
}
SECOND_WAVE = {Mood.STEADY, Mood.LESS, Mood.FORGETFUL, Mood.LATE}


def document(buyers: int) -> View:
    """A presale for so many buyers, which is about to open."""
    closes = OPENS_IN_SECONDS + DEPOSIT_SECONDS
    return {
        "id": CAMPAIGN,
        "kind": "presale",
        "title": "Singles' Day phones",
        "currency": "CNY",
        "opens_at": instant(OPENS_IN_SECONDS),
        "closes_at": instant(closes),
        "balance_opens_at": instant(closes + GAP_SECONDS),
        "balance_closes_at": instant(closes + GAP_SECONDS + BALANCE_SECONDS),
        "reminder_seconds": [2],
        "hold_seconds": HOLD_SECONDS,
        "per_user": 5,
        "deposit_refundable": True,
        "spend_and_save": [{"spend": 500000, "save": 50000}, {"spend": 1000000, "save": 120000}],
        "offers": [
            {
                "sku": "phone-16",
                "price": 599900,
                "stock": 2 * buyers,
                "per_user": 2,
                "deposit": 10000,
                "deposit_worth": 20000,
                "gifts": [{"sku": "earbuds", "first": max(5, buyers // 6)}],
            },
            {
                "sku": "tablet-11",
                "price": 249900,
                "stock": max(6, buyers // 12),
                "deposit": 5000,
                "deposit_worth": 10000,
            },
            {"sku": "case", "price": 8900, "stock": 3 * buyers, "deposit": 500},
        ],
    }


async def play(stage: Stage, buyers: int) -> Played:
    """The presale, from its creation to its end."""
    await stage.merchant.create(stage.document)
    balance_at, ends_at = (
        datetime.fromisoformat(stage.document[name]) for name in ("balance_opens_at", "balance_closes_at")
    )
    presale = _Presale(stage, balance_at.timestamp(), ends_at.timestamp())
    moods = stage.dice.choices(list(MOODS), list(MOODS.values()), k=buyers)
    async with stage.progress():
        gap = asyncio.create_task(presale.gap())
        await asyncio.gather(
            *(presale.buy(stage.shopper(f"buyer-{n}"), mood) for n, mood in enumerate(moods)),
            presale.tablets(stage.document["offers"][1]["stock"]),
        )
        at_gap = await gap
        await until(ends_at.timestamp())
    ended = await stage.end()
    final = await stage.shopper("onlooker").ranking()
    mine = {one.name: (await one.ranking())["me"] for one in stage.reservers}
    amounts = {name: me and me["amount"] for name, me in mine.items()}
    await come_true(lambda: _all_told(stage, ended))
    violations = [
        *ended.violations,
        *check_gifts(stage.log, at_gap, stage.document),
        *check_line(stage.log),
        *check_ranking(final, amounts, spent(stage.log, ends_at)),
        *_check_notices(stage, ended),
    ]
    return stage.played(_lines(stage, ended, at_gap, final), violations)


class _Presale:
    """What buyers do."""

    def __init__(self, stage: Stage, balance_at: float, ends_at: float) -> None:
        self._stage = stage
        self._balance_at = balance_at
        self._ends_at = ends_at

    async def buy(self, buyer: Shopper, mood: Mood) -> None:
        """One buyer's presale of phones."""
        dice = buyer.dice
        await buyer.visit()
        if dice.random() < EARLY_SHARE and time.time() < self._stage.opens_at:
            await buyer.reserve("phone-16", answers=or_from("not_started", self._stage.opens_at, "held"))
        second = mood in SECOND_WAVE and dice.random() < 0.5
        begins, ends = SECOND_WAVE_SECONDS if second else (0.0, FIRST_WAVE_SECONDS)
        await self._stage.opening(after_s=begins + (ends - begins) * dice.random())
        if buyer.name in {one.user for one in self._stage.log.followed.values()}:
            return  # came so close to the opening that it was open
        quantity = 2 if mood is Mood.LESS else 1
        await buyer.quote("phone-16", quantity)
        key = f"{buyer.name}-phone"
        held = await buyer.reserve("phone-16", quantity, key=key)
        if held is not None and dice.random() < EARLY_SHARE:  # did that go through?
            await buyer.reserve("phone-16", quantity, key=key, answers="replayed")
        if held is None or mood is Mood.IDLE:
            return
        await buyer.pause(0.5)
        if mood is Mood.TARDY:
            held = await self._deposit_late(buyer, held)
        else:
            held = await buyer.pay(held, "deposit")
        if held["state"] != "deposit_paid":
            return
        held = await self._change(buyer, mood, held)
        if mood in (Mood.STEADY, Mood.MORE) and dice.random() < EXTRAS_SHARE:
            await self._buy_cases(buyer, dice.randint(1, 3))
        if held["state"] == "deposit_paid" and mood is not Mood.FORGETFUL:
            await self._pay_balance(buyer, held, late=mood is Mood.LATE)

    async def _deposit_late(self, buyer: Shopper, held: View) -> View:
        payment = await buyer.request_payment(held, "deposit")
        held = await buyer.look_until(held, "expired", HOLD_SECONDS + 5)
        if payment is None:
            return held
        return await buyer.settle(held, payment, or_else="refunded")  # if there is none left

    async def _change(self, buyer: Shopper, mood: Mood, held: View) -> View:
        """What happens to it while the deposit window is open; the reservation afterwards."""
        if mood is Mood.STEADY:
            live = await buyer.ranking()
            if live["final"] or live["me"] is None or live["me"]["amount"] != held["price"]["deposit"]:
                buyer.unexpected("ranking", str(live), [f"{held['price']['deposit']} spent"])
        if mood is Mood.FICKLE:
            await buyer.pause(1)
            await buyer.cancel(held)
            return await buyer.look(held)
        if mood in (Mood.MORE, Mood.UNDECIDED):
            await buyer.amend(held, 3, answers="quota_exceeded")
            await buyer.quote("phone-16", 2)
            held = await buyer.amend(held, 2)
            if held["quantity"] == 2 and mood is Mood.MORE:
                return await buyer.pay(held, "deposit")
            if held["quantity"] == 2:
                return await self._difference_late(buyer, held)
        if mood is Mood.LESS:
            await buyer.quote("phone-16", 1)
            return await buyer.amend(held, 1)
        return held

    async def _difference_late(self, buyer: Shopper, held: View) -> View:
        """What was agreed before holds again; a difference that comes too late is given back."""
        payment = await buyer.request_payment(held, "deposit")
        until_s = time.monotonic() + HOLD_SECONDS + 5
        while held["quantity"] == 2 and time.monotonic() < until_s:
            await asyncio.sleep(POLL_SECONDS)
            held = await buyer.look(held)
        if payment is not None and buyer.dice.random() < 0.5:
            held = await buyer.settle(held, payment)
        return held

    async def _pay_balance(self, buyer: Shopper, held: View, *, late: bool) -> None:
        if buyer.dice.random() < EARLY_SHARE and time.time() < self._balance_at:
            answers = or_from("payment_window_closed", self._balance_at, "payment_requested")
            await buyer.request_payment(held, "balance", answers=answers)
        await until(self._balance_at + BALANCE_SECONDS / 2 * buyer.dice.random())
        payment = await buyer.request_payment(held, "balance")
        if payment is None:
            return
        if late:
            await until(self._ends_at)
            held = await buyer.look_until(held, "forfeited", 10)
        await buyer.settle(held, payment)

    async def _buy_cases(self, buyer: Shopper, quantity: int) -> None:
        await buyer.quote("case", quantity)
        held = await buyer.reserve("case", quantity)
        if held is not None:
            held = await buyer.pay(held, "deposit")
            if held["state"] == "deposit_paid":
                await self._pay_balance(buyer, held, late=False)

    async def gap(self) -> dict[str, View]:
        """All reservations in the gap, when no more deposits are taken and no balance yet."""
        await until(self._stage.log.closes_at + GAP_SECONDS / 4)
        return await self._stage.reservations()

    async def tablets(self, stock: int) -> None:
        """There are few: they sell out, and who comes later stands in line for what comes back."""
        await self._stage.opening()
        first = [self._stage.shopper(f"first-{n}") for n in range(stock)]
        await asyncio.gather(*(one.visit() for one in first))
        await first[0].quote("tablet-11")
        taken = await asyncio.gather(*(one.reserve("tablet-11") for one in first))
        buying = [
            asyncio.create_task(self._buy_tablet(buyer, held, n % 3))
            for n, (buyer, held) in enumerate(zip(first, taken, strict=True))
            if held is not None
        ]
        waiting = []
        for number in range(stock):  # one after the other, so that everybody knows who was first
            waiter = self._stage.shopper(f"waiter-{number}")
            await waiter.visit()
            held = await waiter.reserve("tablet-11", answers="sold_out held")
            if held is not None:  # something came back when nobody stood in line
                buying.append(asyncio.create_task(self._buy_tablet(waiter, held, turn=0)))
                continue
            place = await waiter.join("tablet-11")
            if place is not None and number % 5 == 4:
                await self._leave(waiter, place)
            elif place is not None:
                waiting.append(asyncio.create_task(self._wait(waiter, place, pays=number % 4 != 1)))
        await asyncio.gather(*buying, *waiting)

    async def _leave(self, waiter: Shopper, place: Place) -> None:
        await waiter.leave(place)
        for name in await waiter.mine():  # it was their turn just before
            place.left, place.served = False, name

    async def _buy_tablet(self, buyer: Shopper, held: View, turn: int) -> None:
        """Of three, one buys it, one pays the deposit and cancels, and one pays late or never."""
        if turn == 2 and buyer.dice.random() < 0.5:
            return
        await buyer.pause(1)
        held = await (self._deposit_late(buyer, held) if turn == 2 else buyer.pay(held, "deposit"))
        if held["state"] == "deposit_paid" and turn == 1:
            await buyer.cancel(held)
        elif held["state"] == "deposit_paid":
            await self._pay_balance(buyer, held, late=False)

    async def _wait(self, waiter: Shopper, place: Place, *, pays: bool) -> None:
        """Stand in line until served, or until the deposit window closes."""
        found: Mapping[str, View] = {}
        while not found and time.time() < self._stage.log.closes_at:
            await asyncio.sleep(POLL_SECONDS)
            found = await waiter.mine()
        found = found or await waiter.mine()
        for held in found.values():
            place.served = held["id"]
            if pays:
                held = await waiter.pay(held, "deposit")
                if held["state"] == "deposit_paid":
                    await self._pay_balance(waiter, held, late=False)
        if not found and not await come_true(lambda: self._is_out(waiter)):
            waiter.unexpected("waitlist", "still in line when all is over", ["out of it"])

    async def _is_out(self, waiter: Shopper) -> bool:
        return not await waiter.places()


async def _all_told(stage: Stage, ended: Ended) -> bool:
    return not _check_notices(stage, ended)


def _check_notices(stage: Stage, ended: Ended) -> list[Violation]:
    """The merchant was told of everybody who was served from the line, and of every forfeit."""
    told = stage.outside.told_of(stage.log.campaign)
    forfeited = sum(
        one.ever("forfeited") or ended.ends[name]["state"] == "forfeited"
        for name, one in stage.log.followed.items()
        if name in ended.ends
    )
    served = sum(place.served is not None for place in stage.log.line)
    return [
        Violation("I8", f"the merchant was told of {told[name]} {name}, and there were {count}")
        for name, count in (("forfeited", forfeited), ("offered", served))
        if told[name] != count
    ]


def _lines(stage: Stage, ended: Ended, at_gap: Mapping[str, View], final: View) -> list[str]:
    log, became = stage.log, states(ended.ends.values())
    found = {
        "reserved": len(log.followed),
        "deposit paid": sum(one.ever("deposit_paid") for one in log.followed.values()),
        "amended": log.outcomes["amended"],
        "cancelled": became["cancelled"],
        "balance paid": became["confirmed"],
        "paid late": sum(one.ever("forfeited") and one.ever("confirmed") for one in log.followed.values()),
        "forfeited": became["forfeited"],
        "expired": became["expired"],
        "refunded": became["refunded"],
    }
    currency = final["currency"]
    top = (f"{one['rank']}. {one['user']} {money(one['amount'], currency)}" for one in final["entries"][:3])
    return [
        *funnel(found),
        f"  refused   {refusals(log)}",
        f"  {_gifts_and_line(stage, log, at_gap)}   {_refunds(stage, ended)}",
        f"  the merchant was told   {figures(stage.outside.told_of(log.campaign))}",
        f"  who spent most   {'   '.join(top)}",
        *offers_table(ended.offers),
    ]


def _gifts_and_line(stage: Stage, log: Log, at_gap: Mapping[str, View]) -> str:
    gift = stage.document["offers"][0]["gifts"][0]
    given = gifts_of(at_gap.values(), "phone-16", gift["sku"])
    served = sum(place.served is not None for place in log.line)
    return f"gifts {given} of {gift['first']}   waitlist {served} of {len(log.line)} served"


def _refunds(stage: Stage, ended: Ended) -> str:
    count = sum(payment.startswith(f"{stage.log.campaign}.") for payment, _ in stage.outside.refunds.values())
    back = sum(stage.outside.refunded(name) for name in ended.ends)
    return f"refunds {count}, {money(back, stage.document['currency'])}"
