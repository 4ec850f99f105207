"""A PostgreSQL that is made up: the book's tables as dicts, and what the statements in settlement/sql do."""

from __future__ import annotations

import operator
import random
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any

import orjson

from reservation.campaign import ms_of
from reservation.envelope import Envelope
from reservation.ids import ReservationId
from reservation.main_order import MainOrder
from settlement.book import (
    PAGE_ROWS,
    Booked,
    BookedCampaign,
    BookRefused,
    BookUnavailable,
    RefundDue,
    _booked,
    _main_order,
)
from settlement.projection import Rows
from tests.simulation.wire import Process, Server, Wire

Row = dict[str, Any]


class BookServer(Server):
    """Tables. A transaction is one step: all of it is there, or nothing."""

    def __init__(self, clock: Callable[[], float], dice: random.Random) -> None:
        super().__init__("book", BookUnavailable)
        self._clock = clock
        self._dice = dice
        self.deadlocks = 0.0
        """Chance of a transaction to be the one that gives way."""
        self.refuses: Callable[[Envelope], bool] = lambda envelope: False
        """What it will not take as it is, for now."""
        self.campaigns: dict[str, Row] = {}
        self.revisions: dict[tuple[str, int], Row] = {}
        self.main_orders: dict[str, Row] = {}
        self.events: dict[tuple[str, int], Row] = {}
        """By reservation id and version."""
        self.orders: dict[str, Row] = {}
        self.payments: dict[str, Row] = {}
        self.refunds: dict[str, Row] = {}
        self.notifications: dict[str, Row] = {}

    def settle(self, envelopes: Sequence[Envelope], rows: Rows) -> None:
        if self._dice.random() < self.deadlocks:
            raise BookUnavailable("deadlock detected")
        if any(map(self.refuses, envelopes)):
            raise BookRefused("not now")
        for found in map(orjson.loads, rows.campaigns):
            self.revisions.setdefault((found["id"], found["revision"]), found)
            _newest(self.campaigns, found["id"], found, "revision")
        for found in map(orjson.loads, rows.main_orders):
            _newest(self.main_orders, found["id"], found)
        for found in map(orjson.loads, rows.reservations):
            for name, user in zip(found["id"], found["user"], strict=True):
                self.events.setdefault((name, found["version"]), found)
                self.take_order(name, {**found, "id": name, "user": user})
        for found in map(orjson.loads, rows.payments):
            _newest(self.payments, found["payment"], found)
        for found in map(orjson.loads, rows.refunds):
            known = self.refunds.get(found["refund"])
            if known is None:
                self.refunds[found["refund"]] = {**found, "attempts": 0, "next_attempt": self._clock()}
            elif known["version"] < found["version"]:
                known.update({name: found[name] for name in ("status", "at", "version")})
        for found in map(orjson.loads, rows.notifications):
            self.notifications.setdefault(found["notification"], found)

    def take_order(self, name: str, found: Row) -> None:
        """The newest version wins; an older one only fills in the tier."""
        known = self.orders.get(name)
        if known is None:
            self.orders[name] = found
        elif known["version"] < found["version"]:
            tier = known["tier"] if known["tier"] is not None else found["tier"]
            self.orders[name] = {**found, "tier": tier, "created_at": known["created_at"]}
        elif known["tier"] is None and found["tier"] is not None:
            self.orders[name] = {**known, "tier": found["tier"]}

    def refunds_to_ask_for(self, limit: int) -> list[RefundDue]:
        now = self._clock()
        pending = [
            row for row in self.refunds.values() if row["status"] == "pending" and row["next_attempt"] <= now
        ]
        due = sorted(pending, key=operator.itemgetter("next_attempt"))[:limit]
        for row in due:
            row["next_attempt"] = now + min(2.0 ** row["attempts"], 300.0)
            row["attempts"] += 1
        return [
            RefundDue(
                row["refund"],
                row["payment"],
                row["amount"],
                row["currency"],
                row["reason"],
                self.payments.get(row["payment"], {}).get("provider_ref"),
            )
            for row in due
        ]

    def records(self, campaign: str) -> list[Booked]:
        """The campaign's reservations, oldest first."""
        found = [
            (
                name, row["state"], row["version"], row["user"], row["sku"], row["quantity"], row["record"],
                datetime.fromisoformat(row["created_at"]), datetime.fromisoformat(row["updated_at"]),
            )
            for name, row in self.orders.items()
            if row["campaign"] == campaign
        ]  # fmt: skip
        return [_booked(row) for row in sorted(found, key=lambda row: (row[-2], row[0]))]

    def changed_between(self, campaigns: Sequence[str], after_ms: int, before_ms: int) -> bool:
        """Whether an order changed in a millisecond between these two."""
        changed = (row["updated_at"] for row in self.orders.values() if row["campaign"] in campaigns)
        return any(after_ms < ms_of(datetime.fromisoformat(at)) < before_ms for at in changed)

    def versions(self, ids: Sequence[ReservationId]) -> dict[ReservationId, int]:
        """Of those whose history is whole."""
        found = {one: self.orders[str(one)]["version"] for one in ids if str(one) in self.orders}
        return {
            one: last
            for one, last in found.items()
            if all((str(one), version) in self.events for version in range(1, last + 1))
        }

    def all_main_orders(self) -> list[MainOrder]:
        found = []
        for name, row in sorted(self.main_orders.items()):
            used_in = {one["campaign"] for one in self.orders.values() if one["main_order"] == name}
            paid_at = datetime.fromisoformat(row["paid_at"]) if row["paid_at"] else None
            found.append(
                (name, row["user"], row["state"], row["lines"], paid_at, row["version"], sorted(used_in))
            )
        return [_main_order(row) for row in found]


def _newest(table: dict[str, Row], name: str, found: Row, version: str = "version") -> None:
    known = table.get(name)
    if known is None or known[version] < found[version]:
        table[name] = found


class MemoryBook:
    """The book, as one process reaches it."""

    def __init__(self, wire: Wire, process: Process, server: BookServer) -> None:
        self._wire = wire
        self._process = process
        self._server = server

    async def settle(self, envelopes: Sequence[Envelope]) -> None:
        rows = Rows(envelopes)
        step = lambda: self._server.settle(envelopes, rows)  # noqa: E731
        await self._wire.call(self._process, self._server, step)

    async def refunds_to_ask_for(self, limit: int) -> list[RefundDue]:
        step = lambda: self._server.refunds_to_ask_for(limit)  # noqa: E731
        return await self._wire.call(self._process, self._server, step)

    async def campaign_ids(self) -> list[str]:
        return await self._wire.call(self._process, self._server, lambda: sorted(self._server.campaigns))

    async def changed_between(self, campaigns: Sequence[str], after_ms: int, before_ms: int) -> bool:
        step = lambda: self._server.changed_between(campaigns, after_ms, before_ms)  # noqa: E731
        return await self._wire.call(self._process, self._server, step)

    async def remembers(self, campaign: str) -> bool:
        return await self.campaign(campaign) is not None

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        step = lambda: [name for name, row in self._server.orders.items() if row["user"] == user]  # noqa: E731
        ids = map(ReservationId.parse, await self._wire.call(self._process, self._server, step))
        return [one for one in ids if one is not None]

    async def campaign(self, campaign: str) -> BookedCampaign | None:
        step = lambda: self._server.campaigns.get(campaign)  # noqa: E731
        row = await self._wire.call(self._process, self._server, step)
        return BookedCampaign(row["revision"], row["status"], row["document"]) if row else None

    async def reservations(self, campaign: str) -> AsyncIterator[list[Booked]]:
        step = lambda: self._server.records(campaign)  # noqa: E731
        found = await self._wire.call(self._process, self._server, step)
        for first in range(0, len(found), PAGE_ROWS):
            yield found[first : first + PAGE_ROWS]

    async def versions(self, ids: Sequence[ReservationId]) -> dict[ReservationId, int]:
        return await self._wire.call(self._process, self._server, lambda: self._server.versions(ids))

    async def main_orders_named(self, ids: Sequence[str]) -> dict[str, MainOrder]:
        found = await self._wire.call(self._process, self._server, self._server.all_main_orders)
        return {one.id: one for one in found if one.id in ids}

    async def main_orders(self, since_ms: int) -> AsyncIterator[list[MainOrder]]:
        """All of them: no life is so long that one is forgotten."""
        found = await self._wire.call(self._process, self._server, self._server.all_main_orders)
        if found:
            yield found
