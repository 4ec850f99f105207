"""The flash sale: many more shoppers than units, all at once, with little patience."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum

from doorbuster.demo.log import View
from doorbuster.demo.report import Played, funnel, latency, offers_table, refusals, states
from doorbuster.demo.shopper import Shopper
from doorbuster.demo.stage import Stage, instant

CAMPAIGN = "midnight-drop"
OPENS_IN_SECONDS = 1.5
HOLD_SECONDS = 3
ARRIVALS_PER_SECOND = 500
"""New shoppers a second once it is open, each with a handful of requests: what one machine can simulate."""
TRIES_MAX = 3
"""How often a shopper comes back to a sold-out offer, in the hope that a hold expires."""
BOT_REQUESTS = 40
EARLY_SHARE = 0.03
ONLOOKERS = 5
"""One to so many shoppers: who only looks."""


class Mood(StrEnum):
    EAGER = "eager"  # reserves, pays, done
    IMPATIENT = "impatient"  # presses the button again and again: the same key
    GREEDY = "greedy"  # wants more than the quota
    IDLE = "idle"  # reserves and never pays
    FICKLE = "fickle"  # reserves and cancels
    BOT = "bot"  # hammers, without a pause


# Out of 100 shoppers.
MOODS = {Mood.EAGER: 50, Mood.IMPATIENT: 20, Mood.GREEDY: 10, Mood.IDLE: 12, Mood.FICKLE: 6, Mood.BOT: 2}


def document(stock: int) -> View:
    """A sale of so many units, which is about to open."""
    phones = stock * 6 // 10
    return {
        "id": CAMPAIGN,
        "kind": "flash_sale",
        "title": "Midnight drop",
        "currency": "CNY",
        "opens_at": instant(OPENS_IN_SECONDS),
        "closes_at": instant(3600),
        "hold_seconds": HOLD_SECONDS,
        "per_user": 2,
        "offers": [
            {"sku": "phone-16", "price": 599900, "list_price": 649900, "stock": phones, "per_user": 1},
            {"sku": "earbuds", "price": 49900, "stock": stock - phones},
        ],
    }


async def play(stage: Stage, shoppers: int) -> Played:
    """The sale, from its creation to its end."""
    await stage.merchant.create(stage.document)
    await asyncio.gather(*(stage.shopper(f"looker-{sku}").quote(sku) for sku in ("phone-16", "earbuds")))
    started = time.monotonic()
    arrivals_s = shoppers / ARRIVALS_PER_SECOND
    moods = stage.dice.choices(list(MOODS), list(MOODS.values()), k=shoppers)
    async with stage.progress():
        await asyncio.gather(
            *(
                _shop(stage, stage.shopper(f"shopper-{number}"), mood, arrivals_s)
                for number, mood in enumerate(moods)
            ),
            *(_look(stage, stage.shopper(f"onlooker-{n}"), arrivals_s) for n in range(shoppers // ONLOOKERS)),
        )
    seconds = time.monotonic() - started
    ended = await stage.end()
    log, became = stage.log, states(ended.ends.values())
    found = {"requests": log.requests, "reserved": len(log.followed), "paid": became["confirmed"]}
    found |= {state: became[state] for state in ("cancelled", "expired", "refunded")}
    lines = [
        *funnel({**found, "replays": log.outcomes["replayed"]}),
        f"  refused   {refusals(log)}",
        f"  {latency(log, await stage.merchant.metrics())}; {log.requests / seconds:,.0f} requests/s",
        *offers_table(ended.offers),
    ]
    return stage.played(lines, ended.violations)


async def _look(stage: Stage, shopper: Shopper, arrivals_s: float) -> None:
    """Come, look, and leave."""
    await stage.opening(after_s=arrivals_s * shopper.dice.random())
    await shopper.visit()


async def _shop(stage: Stage, shopper: Shopper, mood: Mood, arrivals_s: float) -> None:
    """One shopper's night."""
    dice = shopper.dice
    early = dice.random() < EARLY_SHARE
    await stage.opening(after_s=-OPENS_IN_SECONDS * dice.random() if early else arrivals_s * dice.random())
    await shopper.visit()
    if mood is Mood.BOT:
        await asyncio.gather(
            *(_press(stage, shopper, mood, f"{shopper.name}-{n}") for n in range(BOT_REQUESTS))
        )
        return
    for attempt in range(TRIES_MAX):
        key = f"{shopper.name}-{attempt}"
        presses = 3 if mood is Mood.IMPATIENT else 1
        found = await asyncio.gather(*(_press(stage, shopper, mood, key) for _ in range(presses)))
        if mood is Mood.GREEDY:
            more = (_press(stage, shopper, mood, f"{key}-{n}", sku="earbuds") for n in range(4))
            found += await asyncio.gather(*more)
        held = {one["id"]: one for one in found if one is not None}
        for reservation in held.values():
            await _follow_up(shopper, mood, reservation)
        if held:
            return
        await asyncio.sleep(1.5 + 2 * dice.random())


async def _press(stage: Stage, shopper: Shopper, mood: Mood, key: str, sku: str | None = None) -> View | None:
    """Press the button; the reservation, if there is one now."""
    if sku is None:
        sku = shopper.dice.choices(["phone-16", "earbuds"], [3, 2])[0]
    answers = "held sold_out"
    if mood is Mood.IMPATIENT:
        sku = "phone-16"  # the same request each time
        answers += " replayed"
    if mood in (Mood.GREEDY, Mood.BOT):
        answers += " quota_exceeded"
    if time.time() < stage.opens_at:
        answers += " not_started"
    return await shopper.reserve(sku, key=key, answers=answers)


async def _follow_up(shopper: Shopper, mood: Mood, held: View) -> None:
    """Pay, cancel, or do nothing."""
    if mood is Mood.IDLE:
        return
    await shopper.pause(1)
    if mood is Mood.FICKLE:
        await shopper.cancel(held)
    else:
        await shopper.pay(held, "full")
