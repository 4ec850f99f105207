"""A real Prometheus, asked over its API."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import aiohttp

LOOK_SECONDS = 0.25
UP_SECONDS_MAX = 60.0
AT_FIRST = {"RoleGone", "TargetDown"}
"""What fires before everybody has been asked once."""


class Prometheus:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session
        self.since = time.time()

    async def _ask(self, path: str, **asked: Any) -> Any:
        async with self._session.post(f"{self.url}/api/v1/{path}", data=asked) as answer:
            body = await answer.json()
        assert body["status"] == "success", (asked, body)
        return body["data"]

    async def now(self, promql: str) -> list[dict[str, Any]]:
        """What a query answers at this moment."""
        return list((await self._ask("query", query=promql))["result"])

    async def ever(self, promql: str) -> bool:
        """Whether a query had an answer, and a number, at any moment since this Prometheus was started."""
        found = await self._ask("query_range", query=promql, start=self.since, end=time.time(), step=1)
        return any(not math.isnan(float(value)) for line in found["result"] for _, value in line["values"])

    async def firing(self) -> set[str]:
        """The alerts that fire now."""
        async with self._session.get(f"{self.url}/api/v1/alerts") as answer:
            found = (await answer.json())["data"]["alerts"]
        return {one["labels"]["alertname"] for one in found if one["state"] == "firing"}

    async def until_all_are_up(self, targets: int) -> None:
        """Return once every target has answered, and no alert remembers that it had not."""
        async with asyncio.timeout(UP_SECONDS_MAX):
            while not await self.now(f"count(up == 1) == {targets}") or await self.firing() & AT_FIRST:
                await asyncio.sleep(LOOK_SECONDS)

    async def until(self, alert: str, *, fires: bool, seconds_max: float) -> None:
        """Return as soon as the alert fires, or no more. Raises TimeoutError, which names it."""
        until = time.monotonic() + seconds_max
        while (alert in await self.firing()) != fires:
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{alert} {'did not fire' if fires else 'did not end'} in {seconds_max:g} s"
                )
            await asyncio.sleep(LOOK_SECONDS)
