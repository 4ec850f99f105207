"""Reservations that were made together stay together up to their rows, and are each as if they had come alone."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from reservation.desk import Request
from reservation.envelope import Envelope
from reservation.outbox import Outbox
from tests.settlement.conftest import Shop

CROWD = ("ann", "bob", "cat", "dan", "käthe", "小红")
TABLES = "orders, order_events, payments, refunds, campaigns, campaign_revisions"


async def crowd(shop: Shop, client: Redis, tier: str | None = None) -> tuple[Envelope, Envelope]:
    """The campaign's event, and that of a crowd who came at once."""
    asking = (
        shop.desk.reserve(shop.campaign, user, tier, user, Request("phone", 1), {}) if False else
        shop.desk.reserve(shop.campaign, user, tier, user, Request("phone", 1))
        for user in CROWD
    )  # fmt: skip
    await asyncio.gather(*asking)
    campaign, group = [entry.envelope for entry in await opened(client).read()]
    assert group["who"][1::2] == [*CROWD]
    return campaign, group


def opened(client: Redis) -> Outbox:
    return Outbox(client, "test")
