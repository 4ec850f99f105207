"""For operators: liveness, readiness, metrics, and the API's description."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric

from gateway.admission import Admission
from gateway.endpoint import json_response
from gateway.metrics import Value, begin, exposition, gauge
from gateway.openapi import describe
from gateway.problems import Problem
from gateway.views import stock_counters
from reservation.campaign import Campaign
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.kernel import Store
from reservation.outbox import Backlog
from reservation.outcomes import Fault
from reservation.record import LIVE, SOLD
from reservation.tasks import end

CHECK_SECONDS_MAX = 2.0
_ending: set[asyncio.Task[None]] = set()
"""Checks that are over their time: what nobody holds, the loop may drop."""
SCRAPE_SECONDS_MAX = 2.0
"""For the store to say what it has. After that there is an answer without it."""
SHOWN_AFTER_CLOSING_MS = 3_600_000
"""A campaign's gauges stay for an hour after its end, so that a closed campaign costs nothing for ever."""
COUNTED_AFTER_CLOSING_MS = 7 * 24 * 3_600_000
"""And what was counted of it for a week: refunds and repeats come late."""


class Operators:
    """The endpoints of operators."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        clock: StoreClock,
        backlog: Callable[[int], Awaitable[Backlog]],
        parts: Mapping[str, Callable[[], Awaitable[object]]],
        admission: Admission,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._backlog = backlog
        self._parts = parts
        self._description = orjson.dumps(describe(), option=orjson.OPT_INDENT_2)
        self._admission = admission

    async def healthz(self, request: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        if self._admission.draining:
            raise Problem("store_unavailable", "gateway: draining")
        states = await asyncio.gather(*(_state(check) for check in self._parts.values()))
        failing = {part: state for part, state in zip(self._parts, states, strict=True) if state != "ok"}
        if failing:
            named = "; ".join(f"{part}: {state}" for part, state in failing.items())
            raise Problem("store_unavailable", named)
        return json_response({"status": "ready", "parts": dict.fromkeys(self._parts, "ok")})

    async def openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self._description, content_type="application/json")

    async def metrics(self, request: web.Request) -> web.Response:
        families = self._windows() + await self._of_the_store()
        body = await asyncio.get_running_loop().run_in_executor(None, exposition, families, self._hidden())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _windows(self) -> list[Metric]:
        """As this process knows the campaigns, whether the store is there or not."""
        shown = self._shown()
        for one in shown:
            begin(one.id, one.kind)
        return [
            gauge(
                "doorbuster_campaign_opens_timestamp_seconds",
                "When a campaign opens, or has opened.",
                [({"campaign": one.id}, one.opens_at_ms / 1000) for one in shown],
            ),
            gauge(
                "doorbuster_campaign_closes_timestamp_seconds",
                "When a campaign takes no more reservations, if nobody closes it before.",
                [({"campaign": one.id}, one.closes_at_ms / 1000) for one in shown],
            ),
        ]

    async def _of_the_store(self) -> list[Metric]:
        reading = asyncio.create_task(self._read())
        done, _ = await asyncio.wait([reading], timeout=SCRAPE_SECONDS_MAX)
        if done:
            with suppress(Fault):
                return reading.result()
        else:
            _end_later(reading)
        return [gauge("doorbuster_store_up", "1 when the store answers.", [({}, 0)])]

    async def _read(self) -> list[Metric]:
        """Raises StoreUnavailable."""
        backlog = await self._backlog(await self._store.now_ms())
        fenced = await self._store.fenced()
        found = await asyncio.gather(*(self._units(campaign) for campaign in self._shown()))
        return [
            gauge("doorbuster_store_up", "1 when the store answers.", [({}, 1)]),
            gauge(
                "doorbuster_store_fenced",
                "1 while the store takes nothing: it has lost something, and is to be reconciled.",
                [({}, int(bool(fenced)))],
            ),
            gauge("doorbuster_outbox_events", "Events not yet out of the outbox.", [({}, backlog.events)]),
            gauge(
                "doorbuster_outbox_oldest_seconds",
                "Age of the oldest event in the outbox.",
                [({}, backlog.oldest_ms / 1000)],
            ),
            gauge(
                "doorbuster_units",
                "Units of each offer by state; available is what is left.",
                [one for campaign in found for one in campaign.units],
            ),
            gauge(
                "doorbuster_offer_stock_units",
                "Units of each offer that there are to be sold, as the store has it now.",
                [one for campaign in found for one in campaign.stock],
            ),
            gauge(
                "doorbuster_conservation_drift",
                "Units by which the store contradicts itself, or is oversold. 0 when all is well.",
                [campaign.drift for campaign in found],
            ),
        ]

    def _shown(self) -> list[Campaign]:
        since = self._clock.now_ms() - SHOWN_AFTER_CLOSING_MS
        # Not from its closing: the last hold may be made then, and balances are paid later.
        return [one for one in self._catalog.all() if one.ends_at_ms > since]

    def _hidden(self) -> frozenset[str]:
        """Campaigns that have been over for so long that nothing is told of them any more."""
        since = self._clock.now_ms() - COUNTED_AFTER_CLOSING_MS
        return frozenset(one.id for one in self._catalog.all() if one.ends_at_ms <= since)

    async def _units(self, campaign: Campaign) -> _Units:
        standing = await self._store.standing(campaign.id, stock_counters(campaign))
        if not standing.known:
            return _Units([], [], ({"campaign": campaign.id}, 0))  # other gauges say that it is lost
        units: list[Value] = []
        stock: list[Value] = []
        drift = 0
        taken = dict.fromkeys(campaign.offers, 0)
        for name, count in standing.tally.items():
            state, _, sku = name.partition("/")
            units.append(({"campaign": campaign.id, "sku": sku, "state": state}, count))
            if state in LIVE | SOLD and sku in taken:
                taken[sku] += count
        for sku, level in zip(campaign.offers, standing.levels, strict=True):
            labels = {"campaign": campaign.id, "sku": sku}
            stock.append((labels, level.cap))
            units.append((labels | {"state": "available"}, level.cap - level.used))
            drift += abs(level.used - taken[sku]) + max(0, level.used - level.cap)
        return _Units(units, stock, ({"campaign": campaign.id}, drift))


class _Units(NamedTuple):
    """What the store has of one campaign."""

    units: list[Value]
    stock: list[Value]
    drift: Value


async def _state(check: Callable[[], Awaitable[object]]) -> str:
    asking = asyncio.ensure_future(check())
    try:
        await asyncio.wait([asking], timeout=CHECK_SECONDS_MAX)
        if asking.done():
            await asking
            return "ok"
    except Fault as fault:
        return f"{type(fault).__name__}: {fault}"
    finally:
        if not asking.done():
            # Not waited for: before psycopg gives up on a server that hangs, it asks it to cancel.
            _end_later(asking)
    return f"no answer within {CHECK_SECONDS_MAX:g} s"


def _end_later(asking: asyncio.Task[Any]) -> None:
    ending = asyncio.create_task(end(asking))
    _ending.add(ending)
    ending.add_done_callback(_ending.discard)
