"""A campaign's report, for services: what it came to, by the book."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import orjson
from aiohttp import web

from gateway.auth import Authenticator
from gateway.endpoint import granted
from reservation.outcomes import Refusal

FRESH_SECONDS_MIN = 5.0
"""For how long an answer is given again, at least."""
FRESH_FACTOR = 9.0
"""And so many times what it took to make: who asks again and again has a tenth of a core of the book's."""
KEPT_MAX = 16


class Reported(Protocol):
    def to_json(self) -> dict[str, Any]: ...


Report = Callable[[str, str | None], Awaitable[Reported | Refusal]]
"""Reports on a campaign, beside an earlier one if there is one named; settlement.report does."""


class _Made(NamedTuple):
    body: bytes
    until: float


class Reports:
    """Reports, one made at a time: a process that sells has better things to do, and so has the book."""

    def __init__(self, report: Report, authenticator: Authenticator) -> None:
        self._report = report
        self._authenticator = authenticator
        self._one_at_a_time = asyncio.Lock()
        self._made: dict[tuple[str, str | None], _Made] = {}

    async def get(self, request: web.Request) -> web.Response:
        await self._authenticator.service(request)
        wanted = request.match_info["campaign"], request.query.get("compare")
        async with self._one_at_a_time:
            made = self._made.get(wanted)
            if made is None or time.monotonic() > made.until:
                made = await self._make(*wanted)
        return web.Response(body=made.body, content_type="application/json")

    async def _make(self, campaign: str, earlier: str | None) -> _Made:
        began = time.monotonic()
        found = granted(await self._report(campaign, earlier))
        # Not on the loop: with a thousand offers and a week of minutes it takes a while.
        body = await asyncio.to_thread(lambda: _dumped(found.to_json()))
        if len(self._made) >= KEPT_MAX:
            self._made.clear()
        now = time.monotonic()
        fresh = max(FRESH_SECONDS_MIN, FRESH_FACTOR * (now - began))
        made = self._made[campaign, earlier] = _Made(body, now + fresh)
        return made


def _dumped(found: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(found)
    except TypeError:  # what a campaign took may be more than 64 bits hold, and to orjson that is no number
        return json.dumps(found, ensure_ascii=False).encode()
