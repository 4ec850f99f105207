"""The deployment, as its merchant and its operator see it. These few requests are not part of the load."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from loadtests.rehearsal.document import Document
from loadtests.rehearsal.exposition import Reading

ASK_SECONDS_MAX = 3.0
AUDIT_SECONDS_MAX = 60.0
"""An audit waits until every event is in the books."""
READING_SECONDS_MAX = 2.0
ATTEMPTS_MAX = 5
ORDERS_AT_ONCE = 32


class ServiceError(Exception):
    """The deployment did not do what its merchant asked. The message is one line."""


class Service:
    """Every request is idempotent, on a connection of its own, and made again where one gateway process of
    several does not answer, or is too busy: the kernel, or a balancer, then picks another."""

    def __init__(self, session: aiohttp.ClientSession, host: str, service_key: str) -> None:
        self._session = session
        self._host = host.rstrip("/")
        self._headers = {"Authorization": f"Bearer {service_key}", "Connection": "close"}

    async def put(self, document: Document) -> Document:
        """Create the campaign, or move it; how it looks now."""
        return await self._ask("PUT", f"/v1/campaigns/{document['id']}", document)

    async def close(self, campaign: str) -> None:
        await self._ask("POST", f"/v1/campaigns/{campaign}/actions", {"action": "close"})

    async def audit(self, campaign: str) -> Document:
        path = f"/v1/campaigns/{campaign}/audit"
        return await self._ask("GET", path, seconds_max=AUDIT_SECONDS_MAX)

    async def report(self, orders: list[Document]) -> None:
        """Report these main orders."""
        turns = asyncio.Semaphore(ORDERS_AT_ONCE)

        async def one(order: Document) -> None:
            async with turns:
                await self._ask("POST", "/v1/orders", order)

        await asyncio.gather(*(one(order) for order in orders))

    async def reading(self) -> Reading | None:
        """What /metrics says; None where there is none to be had."""
        for _ in range(ATTEMPTS_MAX):
            timeout = aiohttp.ClientTimeout(total=READING_SECONDS_MAX)
            try:
                async with self._session.get(
                    f"{self._host}/metrics", headers={"Connection": "close"}, timeout=timeout
                ) as answer:
                    if answer.status != 200:
                        return None
                    return Reading(await answer.text())
            except ValueError:  # something else answers there
                return None
            except (aiohttp.ClientError, TimeoutError):
                continue
        return None

    async def _ask(
        self, method: str, path: str, body: Any = None, *, seconds_max: float = ASK_SECONDS_MAX
    ) -> Document:
        said = ""
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with self._session.request(
                    method,
                    self._host + path,
                    json=body,
                    headers=self._headers,
                    timeout=aiohttp.ClientTimeout(total=seconds_max),
                ) as answer:
                    if answer.status < 300:
                        return dict(await answer.json())
                    said = f"{answer.status} {' '.join((await answer.text()).split())}"
                    if answer.status not in (429, 503):
                        break
            except TimeoutError:
                said = f"no answer within {seconds_max:g} s"
            except (aiohttp.ClientError, ValueError) as error:
                said = str(error) or type(error).__name__
            if attempt < ATTEMPTS_MAX - 1:
                await asyncio.sleep(0.2 * (attempt + 1))
        raise ServiceError(f"{method} {path}: {said}")
