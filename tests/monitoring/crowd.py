"""Shoppers of every kind, who come for as long as they are wanted: what Prometheus is to see moves."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from reservation.tasks import end
from tests.monitoring.prometheus import LOOK_SECONDS
from tests.monitoring.watched import Watched
from tests.stack import Answer, presale, sale, sign, trade_in

FLASH, ENDLESS, PRESALE, BALANCE, TRADE_IN = "flash", "endless", "presale", "balance", "trade-in"
IDLE = "idle"
"""Nobody comes to it: what is in it is for faults to spoil."""


class Crowd:
    def __init__(self, watched: Watched) -> None:
        self._client = watched.client
        self._outside = watched.outside
        self._prometheus = watched.prometheus
        self._numbers = count(1)
        self.forging = False
        """Whether somebody sends notices with a signature that does not fit."""

    async def open(self) -> None:
        """Put everything on sale, and reserve what faults will spoil."""
        now = datetime.now(UTC)
        soon = [(now + timedelta(seconds=seconds)).isoformat() for seconds in (8, 9, 3600)]
        plenty = [{"sku": "phone", "price": 5000, "stock": 1_000_000}]
        deposit = [{"sku": "phone", "price": 5000, "stock": 1_000_000, "deposit": 100}]
        for document in (
            sale(
                id=FLASH,
                opens_at=(now + timedelta(seconds=3)).isoformat(),
                offers=[{"sku": sku, "price": 5000, "stock": 40} for sku in ("phone", "case")],
                waitlist=True,
                waitlist_hold_seconds=2,
                hold_seconds=3,
            ),
            sale(id=ENDLESS, offers=plenty),
            presale(id=PRESALE, offers=deposit),
            presale(
                id=BALANCE,
                offers=deposit,
                closes_at=soon[0],
                balance_opens_at=soon[1],
                balance_closes_at=soon[2],
            ),
            trade_in(id=TRADE_IN),
            sale(id=IDLE),
        ):
            answer = await self._client.put(document)
            assert answer.status == 201, answer
        assert (await self._client.reserve(IDLE, "somebody")).status == 201
        # What is paid before Prometheus has seen that nothing was, has not risen for it.
        unpaid = f'doorbuster_settled_payments_total{{campaign="{BALANCE}", stage="deposit"}}'
        while not await self._prometheus.now(unpaid):
            await asyncio.sleep(LOOK_SECONDS)
        for number in range(5):
            held = (await self._client.reserve(BALANCE, f"early-{number}")).body
            await self._pay(held["id"], f"early-{number}", "deposit")

    def shoppers(self) -> list[Callable[[], Awaitable[None]]]:
        """What they do, again and again; about a hundred requests a second in all."""
        return [
            *[self._rush] * 3,
            *[self._buy] * 3,
            self._change_their_mind,
            self._trade_in,
            self._look,
            self._owe,
            self._repeat,
            self._forge,
        ]

    async def _rush(self) -> None:
        user = self._user()
        for sku in ("phone", "case"):
            answer = await self._client.reserve(FLASH, user, sku=sku)
            if answer.status == 201 and next(self._numbers) % 2:
                await self._pay(answer.body["id"], user, "full")
            elif answer.code == "sold_out" and next(self._numbers) % 10 == 0:
                await self._client.join(FLASH, user, sku=sku)

    async def _buy(self) -> None:
        user = self._user()
        answer = await self._client.reserve(ENDLESS, user)
        if answer.status == 201 and next(self._numbers) % 4 == 0:
            await self._pay(answer.body["id"], user, "full")

    async def _change_their_mind(self) -> None:
        user = self._user()
        held = await self._client.reserve(PRESALE, user)
        if held.status == 201:
            await self._pay(held.body["id"], user, "deposit")
            await self._client.cancel(held.body["id"], user)

    async def _trade_in(self) -> None:
        user, order = self._user(), uuid.uuid4().hex
        await self._client.report(order, user, ("tv", 5000))
        await self._client.reserve(TRADE_IN, user, sku="soundbar", order_id=order)

    async def _look(self) -> None:
        user = self._user()
        for campaign in (FLASH, PRESALE):
            await self._client.call("GET", f"/v1/campaigns/{campaign}")
        await self._client.call("GET", "/v1/reservations", user=user)
        await self._client.quote(ENDLESS, user, sku="phone")
        async with self._client.session.get(f"{self._client.url}/v1/campaigns/{FLASH}/events") as stream:
            await asyncio.wait_for(stream.content.readline(), 2)

    async def _owe(self) -> None:
        """Pay the balance, once it is due; then there is nothing left to do."""
        for number in range(5):
            user = f"early-{number}"
            for one in (await self._client.call("GET", "/v1/reservations", user=user)).body["reservations"]:
                if one["due"] is not None and one["due"]["stage"] == "balance":
                    await self._pay(one["id"], user, "balance")

    async def _repeat(self) -> None:
        user, key = self._user(), uuid.uuid4().hex
        for _ in range(2):
            await self._client.reserve(ENDLESS, user, key=key)

    async def _forge(self) -> None:
        body = b'{"type": "payment.succeeded", "data": {}}'
        headers = sign(body, key=b"somebody else's")
        for _ in range(20 if self.forging else 1):
            await self._client.call("POST", "/v1/payments/webhook", data=body, headers=headers)
        await asyncio.sleep(0 if self.forging else 5)

    async def _pay(self, reservation: str, user: str, stage: str) -> Answer:
        asked = await self._client.pay(reservation, user, stage)
        if asked.status == 200:
            paying: Any = asked.body
            await self._outside.charge(paying["payment_id"], paying["amount"], paying["currency"])
        return asked

    def _user(self) -> str:
        return f"shopper-{next(self._numbers)}"


@asynccontextmanager
async def shopping(watched: Watched) -> AsyncIterator[Crowd]:
    """A block during which all of them come, whatever is broken."""
    crowd = Crowd(watched)
    await crowd.open()

    async def again(behaviour: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(Exception):  # who is not served as they expect comes again
                await behaviour()
            await asyncio.sleep(0.1)

    coming = [asyncio.create_task(again(behaviour)) for behaviour in crowd.shoppers()]
    try:
        yield crowd
    finally:
        await end(*coming)
