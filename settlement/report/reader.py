"""Reads what a report is made of: all of it as of one instant, and nobody waits for it.

Its connection is its own, it takes no lock that anybody wants, one core at most, and gives up after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import psycopg

from reservation.ids import is_campaign_id
from settlement.book import BookUnavailable
from settlement.dsn import complete
from settlement.report.facts import Became, Change, Facts, Refunds
from settlement.statements import statement

STATEMENT_SECONDS_MAX = 300
ROWS_AT_ONCE = 500
"""Are some milliseconds' work."""
LEVELS_MAX = 20
"""Offers of which a curve is told: those of which most was taken."""
STEPS_MAX = 150
"""Of the curve of an offer's stock, while reservations are made; and after that."""
_A_LITTLE = timedelta(minutes=1)
_STEP_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SETTINGS = (
    f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS_MAX}s'",
    "SET LOCAL max_parallel_workers_per_gather = 0",
)


class ReportReader:
    """Reads campaigns from the book."""

    def __init__(self, dsn: str) -> None:
        self._dsn = complete(dsn)

    async def read(self, *campaigns: str) -> list[Facts | None]:
        """These campaigns at one instant; None for what the book does not have. Raises BookUnavailable."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, application_name="doorbuster-report"
            )
            async with connection:
                for said in (_READ_ONLY, *_SETTINGS):
                    await connection.execute(said)
                # What no campaign is called is asked for too, and the book cannot even be told of some of it.
                return [
                    await _Reading(connection, campaign).facts() if is_campaign_id(campaign) else None
                    for campaign in campaigns
                ]
        except (psycopg.Error, OSError) as error:
            raise BookUnavailable(str(error)) from error


class _Reading:
    """The reading of one campaign."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], campaign: str) -> None:
        self._connection = connection
        self._campaign = campaign

    async def facts(self) -> Facts | None:
        found = await self._all("report_campaign")
        if not found:
            return None
        ((document, status, as_of),) = found
        people = await self._all("report_people")
        ((reservers, payers, buyers, first_at, last_at, changed_at),) = await self._all("report_users")
        opens_at = datetime.fromisoformat(document["opens_at"])
        begins = min(opens_at, first_at or opens_at)
        until = (last_at or opens_at) + _A_LITTLE
        changes: dict[datetime, Change] = {}
        steps: dict[str, dict[datetime, Change]] = {}
        sold_out: dict[str, datetime] = {}
        said = {
            "from": begins,
            "until": until,
            "step": _step(begins, until),
            "late_step": _step(until, changed_at or until),
            "offers": LEVELS_MAX,
        }
        async for sku, minute, step, *deltas, full_at in self._rows("report_levels", said):
            if minute is not None:
                changes[minute] = Change(*map(int, deltas))
            elif step is not None:
                steps.setdefault(sku, {})[step] = Change(*map(int, deltas))
            elif full_at is not None:
                sold_out[sku] = full_at
        return Facts(
            document=document,
            status=status,
            as_of=as_of,
            visitors=people[0][0] if people else None,
            participants=people[0][1] if people else None,
            traffic={(minute, what): count async for minute, what, count in self._rows("report_traffic")},
            became={
                (sku, tier): Became(*map(int, counts))
                async for sku, tier, *counts in self._rows("report_orders")
            },
            reservers=reservers,
            payers=payers,
            buyers=buyers,
            first_at=first_at,
            refunds=[
                Refunds(sku, tier, reason, status, count, int(amount))
                async for sku, tier, reason, status, count, amount in self._rows("report_refunds")
            ],
            gifts={(sku, gift): int(given) async for sku, gift, given in self._rows("report_gifts")},
            main_orders=await self._main_orders(document),
            minutes={
                minute: (int(reserved), int(units), int(paid))
                async for minute, reserved, units, paid in self._rows("report_minutes")
            },
            changes=changes,
            steps=steps,
            sold_out=sold_out,
        )

    async def _main_orders(self, document: dict[str, Any]) -> int | None:
        condition = document.get("entitlement")
        if condition is None:
            return None
        parameters = {
            "skus": condition.get("skus"),
            "categories": condition.get("categories"),
            "min_spend": condition.get("min_spend", 0),
            "closes_at": document["closes_at"],
        }
        ((count,),) = await self._all("report_main_orders", parameters)
        return int(count)

    async def _all(self, name: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        return [row async for row in self._rows(name, parameters)]

    async def _rows(self, name: str, parameters: dict[str, Any] | None = None) -> AsyncIterator[Any]:
        """Some at a time: the loop that reads may be one that sells."""
        cursor = await self._connection.execute(
            statement(name), {"campaign": self._campaign, **(parameters or {})}
        )
        while rows := await cursor.fetchmany(ROWS_AT_ONCE):
            for row in rows:
                yield row
            await asyncio.sleep(0)


def _step(begins: datetime, ends: datetime) -> timedelta:
    """So long that STEPS_MAX at most lie between the two, as people divide time."""
    seconds = (ends - begins).total_seconds()
    return timedelta(
        seconds=next((step for step in _STEP_SECONDS if seconds / step <= STEPS_MAX), 7 * 86_400)
    )
