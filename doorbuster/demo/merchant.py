"""The merchant, as a service: makes campaigns, reports main orders, and asks for the audit."""

from __future__ import annotations

from typing import Any

import aiohttp

from doorbuster.demo.log import Log, View
from doorbuster.demo.service import DemoFailed
from doorbuster.demo.shopper import Asker, due_by, or_from


class Merchant(Asker):
    """Who has the service key."""

    def __init__(self, session: aiohttp.ClientSession, log: Log, service_key: str) -> None:
        super().__init__(session, log, "merchant", service_key)

    async def create(self, document: View) -> None:
        """Raises DemoFailed."""
        told = await self.ask("PUT", f"/v1/campaigns/{self.log.campaign}", "created", body=document)
        if told.outcome != "created":
            raise DemoFailed(f"campaign {self.log.campaign} was not created: {told.body}")

    async def campaign(self) -> View:
        return (await self.ask("GET", f"/v1/campaigns/{self.log.campaign}", "seen")).body

    async def audit(self) -> View:
        """The campaign's part of the service's own audit. Raises DemoFailed."""
        told = await self.ask("GET", f"/v1/campaigns/{self.log.campaign}/audit", "audited")
        if told.outcome != "audited":
            raise DemoFailed(f"campaign {self.log.campaign} was not audited: {told.body}")
        found: View = told.body["campaigns"][0]
        return found

    async def report_order(self, order_id: str, user: str, lines: list[tuple[str, str, int]]) -> View:
        """A main order was paid, or this is left of it: lines of (sku, category, amount)."""
        report: dict[str, Any] = {
            "order_id": order_id,
            "user": user,
            "lines": [
                {"sku": sku, "category": category, "amount": amount} for sku, category, amount in lines
            ],
            "paid_at": "2026-01-01T00:00:00Z",
        }
        return (await self.ask("POST", "/v1/orders", "reported", body=report)).body

    async def cancel_order(self, order_id: str) -> View:
        return (await self.ask("POST", f"/v1/orders/{order_id}/cancel", "order_cancelled")).body

    async def order(self, order_id: str) -> View:
        return (await self.ask("GET", f"/v1/orders/{order_id}", "seen")).body

    async def paid_with_order(self, order_id: str, held: View) -> View:
        """The main order's payment has paid for this trade-in as well; the trade-in afterwards."""
        due = held["due"]
        told = await self.ask(
            *("POST", f"/v1/orders/{order_id}/payments", "paid"),
            answers=or_from("paid", due_by(held), "wrong_state"),
            body={
                "reservation": held["id"],
                "amount": due["amount"],
                "currency": due["currency"],
                "provider_ref": f"order-payment-{order_id}",
            },
        )
        if told.outcome != "paid":
            return held
        followed = self.log.followed[held["id"]]
        followed.charged[f"{held['id']}.full"] = due["amount"]
        self.log.see(told.body)
        return told.body

    async def metrics(self) -> dict[str, float]:
        """Figures by series."""
        async with self._session.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}
