"""What is outside the service and keeps books of its own: the bank that gives back, the merchant's inbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

_SIGNATURE = ("content-type", "webhook-id", "webhook-timestamp", "webhook-signature")


class Outside:
    """Takes refunds, and has the sandbox confirm them; takes notifications."""

    def __init__(self) -> None:
        self.url = ""
        self.sandbox_url = ""
        """Known once the service runs."""
        self.refunds: dict[str, tuple[str, int]] = {}
        """By id: the payment that it is of, and how much of it."""
        self.contradictions: list[str] = []
        self.notices: dict[str, dict[str, Any]] = {}
        """By id."""
        self._session: aiohttp.ClientSession | None = None

    def refunded(self, reservation: str) -> int:
        """What was given back of a reservation's payments."""
        of_payments = (found for found in self.refunds.values() if found[0].rpartition(".")[0] == reservation)
        return sum(amount for _, amount in of_payments)

    def told_of(self, campaign: str) -> Counter[str]:
        """How often the merchant was told of what, in a campaign."""
        mine = (one for one in self.notices.values() if one["data"]["campaign"] == campaign)
        return Counter(one["type"].removeprefix("reservation.") for one in mine)

    async def take_refund(self, request: web.Request) -> web.Response:
        if self._session is None or not self.sandbox_url:
            return web.Response(status=503)
        headers = {name: request.headers[name] for name in _SIGNATURE if name in request.headers}
        async with self._session.post(
            f"{self.sandbox_url}/sandbox/refunds", data=await request.read(), headers=headers
        ) as answer:
            delivered = answer.status == 200 and (await answer.json())["webhook_status"] == 200
        if not delivered:
            return web.Response(status=503)
        asked = await request.json()
        refund = (asked["payment_id"], asked["amount"])
        if self.refunds.setdefault(asked["refund_id"], refund) != refund:
            self.contradictions.append(f"{asked['refund_id']} was asked for twice, with two amounts")
        return web.Response(status=204)

    async def take_notice(self, request: web.Request) -> web.Response:
        self.notices[request.headers["webhook-id"]] = await request.json()
        return web.Response(status=204)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen, on a free port of loopback."""
        app = web.Application()
        app.router.add_post("/refunds", self.take_refund)
        app.router.add_post("/notices", self.take_notice)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with aiohttp.ClientSession() as self._session:
                yield
        finally:
            await runner.cleanup()
