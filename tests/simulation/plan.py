"""What a seed stands for: campaigns, how many shoppers, the weather, and what is to break when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reservation.campaign import rfc3339
from tests.simulation.loop import START_SECONDS
from tests.simulation.wire import Weather

OPENS, CLOSES, BALANCE_OPENS, BALANCE_CLOSES = 0.5, 12.0, 13.0, 19.0
"""Seconds since the beginning, as all times here."""
CALM_AT = 17.0
"""From then on nothing breaks any more."""
QUIET_BY = CALM_AT + 120.0
"""By then everything has to have drained (I8)."""


class Loss(StrEnum):
    """What the store loses once in its life."""

    NOTHING = "nothing"
    LAST_SECOND = "last_second"  # its machine goes; appendfsync everysec
    EVERYTHING = "everything"


@dataclass
class Plan:
    documents: list[dict[str, Any]]
    has_broker: bool
    weather: Weather
    users: list[str]
    acts: int
    """Of each shopper."""
    breaks: list[tuple[float, str]]
    """When what is killed, or goes away."""
    loss: Loss
    loss_at: float
    repairs_at: list[float]
    """When an operator reconciles, though nothing was lost."""
    refused: bool
    """Whether the book refuses some events for a while."""
    deadlocks: float


def plan_of(seed: int, kind: str | None = None) -> Plan:
    """What a seed stands for; with `kind`, as a campaign of that kind."""
    dice = random.Random(f"plan {seed}")
    drawn = dice.choice(("flash_sale", "presale", "trade_in"))
    stormy = dice.random() < 0.75
    weather = Weather()
    breaks: list[tuple[float, str]] = []
    if stormy:
        weather = Weather(
            lost_request=dice.choice((0.0, 0.0, 0.01, 0.04)),
            lost_reply=dice.choice((0.0, 0.02, 0.05)),
            slow=dice.choice((0.0, 0.02, 0.1)),
            slow_seconds_max=dice.choice((0.3, 1.0, 6.0)),
            sluggish=dice.choice(("", "sweeper", "sweeper", "gateway", "relay", "worker")),
        )
        roles = ("gateway", "gateway", "relay", "relay", "worker", "worker", "worker", "sweeper")
        servers = ("store", "broker", "broker", "book", "book and worker")
        count = dice.choice((2, 4, 8))
        what = [dice.choice(roles) if dice.random() < 0.65 else dice.choice(servers) for _ in range(count)]
        breaks = sorted((dice.uniform(OPENS, CALM_AT), one) for one in what)
    loss = dice.choices(list(Loss), (6, 1, 1))[0]
    return Plan(
        documents=[_document(dice, kind or drawn)],
        has_broker=dice.random() < 0.7,
        weather=weather,
        users=[f"user-{number}" for number in range(dice.choice((3, 4, 6)))],
        acts=dice.choice((3, 5)),
        breaks=breaks,
        loss=loss,
        loss_at=dice.uniform(2, CLOSES),
        repairs_at=[dice.uniform(2, CALM_AT)] if dice.random() < 0.2 else [],
        refused=stormy and dice.random() < 0.15,
        deadlocks=dice.choice((0.0, 0.1)) if stormy else 0.0,
    )


def at(seconds: float) -> str:
    return rfc3339(int((START_SECONDS + seconds) * 1000))


def _document(dice: random.Random, kind: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": kind.replace("_", "-"),
        "kind": kind,
        "currency": "CNY",
        "hold_seconds": dice.choice((1, 2, 4)),
        "opens_at": at(OPENS),
        "closes_at": at(CLOSES),
        "offers": [_offer(dice, kind, sku) for sku in ("phone", "case")[: dice.choice((1, 1, 2))]],
    }
    if dice.random() < 0.6:
        document["per_user"] = dice.choice((1, 2, 3))
    if kind == "presale":
        document["balance_opens_at"] = at(BALANCE_OPENS)
        document["balance_closes_at"] = at(BALANCE_CLOSES)
        document["deposit_refundable"] = dice.random() < 0.5
        document["reminder_seconds"] = dice.choice(([], [2]))
    if kind == "trade_in":
        document["entitlement"] = {"min_spend": 100, "grants": dice.choice((1, 2, 3))}
    return document


def _offer(dice: random.Random, kind: str, sku: str) -> dict[str, Any]:
    offer: dict[str, Any] = {"sku": sku, "price": 100, "stock": dice.choice((1, 2, 3, 6))}
    if dice.random() < 0.3:
        offer["per_user"] = dice.choice((1, 2))
    if kind == "presale":
        offer |= {"deposit": 10, "deposit_worth": 20}
        if dice.random() < 0.6:
            offer["gifts"] = [{"sku": "mug", "first": dice.choice((1, 2))}]
    return offer
