"""Simulated shoppers: what they try, and a log of what they were told."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import aiohttp

TRIES_MAX = 4
"""How often a shopper comes back to a sold-out offer, in the hope that a hold expires."""
BOT_REQUESTS = 40
EXPECTED = frozenset(
    {
        "held",
        "replayed",
        "sold_out",
        "quota_exceeded",
        "not_started",
        "overloaded",
        "cancelled",
        "payment_requested",
        "paid",
        "payment_window_closed",
        "wrong_state",
    }
)
"""What a shopper of such a sale may be told. Anything else is a defect."""


class Mood(StrEnum):
    EAGER = "eager"  # reserves, pays, done
    IMPATIENT = "impatient"  # presses the button again and again: the same key
    GREEDY = "greedy"  # wants more than the quota
    IDLE = "idle"  # reserves and never pays
    FICKLE = "fickle"  # reserves and cancels
    BOT = "bot"  # hammers, without a pause


@dataclass
class Shopper:
    user: str
    token: str
    mood: Mood
    campaign: str
    opens_at: datetime
    arrives_after_s: float
    """After the opening, by intention; some cannot wait for it."""
    random: random.Random

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Log:
    """What the shoppers were told."""

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    held: dict[str, Shopper] = field(default_factory=dict)
    """By reservation id: every reservation that was ever acknowledged."""
    paid: set[str] = field(default_factory=set)
    by_key: dict[str, set[str]] = field(default_factory=dict)
    reserve_ms: list[float] = field(default_factory=list)
    undocumented: list[str] = field(default_factory=list)


async def shop(session: aiohttp.ClientSession, shopper: Shopper, log: Log) -> None:
    """One shopper's night."""
    dice = shopper.random
    until_opening = (shopper.opens_at - datetime.now(UTC)).total_seconds()
    early = dice.random() < 0.03
    arrives = until_opening * dice.random() if early else until_opening + shopper.arrives_after_s
    await asyncio.sleep(max(0.0, arrives))
    if shopper.mood is Mood.BOT:
        await asyncio.gather(
            *(_reserve(session, shopper, log, f"{shopper.user}-{n}") for n in range(BOT_REQUESTS))
        )
        return
    for attempt in range(TRIES_MAX):
        key = f"{shopper.user}-{attempt}"
        presses = 3 if shopper.mood is Mood.IMPATIENT else 1
        found = await asyncio.gather(*(_reserve(session, shopper, log, key) for _ in range(presses)))
        if shopper.mood is Mood.GREEDY:
            more = (_reserve(session, shopper, log, f"{key}-{n}", sku="earbuds") for n in range(4))
            found += await asyncio.gather(*more)
        held = {one["id"]: one for one in found if one is not None}
        for reservation in held.values():
            await _follow_up(session, shopper, log, reservation)
        if held:
            return
        await asyncio.sleep(2 + 3 * dice.random())


async def _reserve(
    session: aiohttp.ClientSession, shopper: Shopper, log: Log, key: str, sku: str | None = None
) -> dict[str, Any] | None:
    """Press the button; the reservation, if there is one now."""
    sku = sku or shopper.random.choices(["phone-16", "earbuds"], [3, 2])[0]
    if shopper.mood is Mood.IMPATIENT:
        sku = "phone-16"  # the same request each time
    started = time.perf_counter()
    async with session.post(
        f"/v1/campaigns/{shopper.campaign}/reservations",
        json={"sku": sku},
        headers={**shopper.headers, "Idempotency-Key": key},
    ) as answer:
        body = await answer.json()
    log.reserve_ms.append((time.perf_counter() - started) * 1000)
    replayed = answer.headers.get("Idempotent-Replayed") == "true"
    outcome = ("replayed" if replayed else "held") if answer.status == 201 else str(body.get("code"))
    _count(log, outcome)
    if answer.status != 201:
        return None
    log.by_key.setdefault(key, set()).add(body["id"])
    log.held[body["id"]] = shopper
    return dict(body)


async def _follow_up(
    session: aiohttp.ClientSession, shopper: Shopper, log: Log, reservation: dict[str, Any]
) -> None:
    """Pay, cancel, or do nothing."""
    path = f"/v1/reservations/{reservation['id']}"
    if shopper.mood is Mood.IDLE:
        return
    await asyncio.sleep(shopper.random.random())
    if shopper.mood is Mood.FICKLE:
        async with session.delete(path, headers=shopper.headers) as answer:
            _count(log, "cancelled" if answer.status == 200 else (await answer.json())["code"])
        return
    async with session.post(f"{path}/payments", json={"stage": "full"}, headers=shopper.headers) as answer:
        payment = await answer.json()
    if answer.status != 200:
        _count(log, payment["code"])
        return
    _count(log, "payment_requested")
    async with session.post(
        f"/sandbox/payments/{payment['payment_id']}", json={"outcome": "succeeded"}
    ) as answer:
        delivered = await answer.json()
    _count(log, "paid" if delivered.get("webhook_status") == 200 else f"webhook {delivered}")
    log.paid.add(reservation["id"])


def _count(log: Log, outcome: str) -> None:
    log.requests += 1
    log.outcomes[outcome] += 1
    if outcome not in EXPECTED:
        log.undocumented.append(f"an answer that no contract names: {outcome}")
