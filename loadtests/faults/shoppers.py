"""Shoppers in an open loop: they come when they come, whether or not the service keeps up.

Who gets no answer, or a 503, asks again with the same key, and not before they may. Some pay, through a
provider of ours; some cancel, some ask twice, some stand in line for what is sold out.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson

from doorbuster.tokens import make_token
from loadtests.faults.log import ClientLog, Try
from loadtests.faults.provider import Provider
from loadtests.openloop.schedule import NS, poisson

ANSWER_SECONDS_MAX = 3.0
PATIENCE_SECONDS = 25.0
"""So long a shopper tries for one thing, from the first time that they ask."""
_PAUSE_SECONDS = 0.1
_PAUSE_SECONDS_MAX = 3.0
COMES_SECONDS_MAX = 90.0
"""So much longer than the load says shoppers may come, while a fault lasts."""
PER_USER = 2
HOLD_SECONDS = 3
SCARCE, PLENTY = "scarce", "plenty"
GIFT, GIFTS = "gift", 20


@dataclass(frozen=True, slots=True)
class Load:
    """How many come, and what they do."""

    rate: float = 150.0
    """Arrivals a second."""
    seconds: float = 4.0
    pays: float = 0.4
    """The share of those with a reservation that pay."""
    cancels: float = 0.1
    asks_again: float = 0.2
    """With the same key, after they were told."""
    waits: float = 0.1
    """In line, when it is sold out."""
    astray: float = 0.0
    """The share of payments that come late, twice, out of order, or that somebody forges."""

    @property
    def arrivals(self) -> int:
        return round(self.rate * self.seconds)


class Shoppers:
    """The crowd of one round."""

    def __init__(self, load: Load, seed: str, url: str, jwt_secret: str, provider: Provider) -> None:
        self.load = load
        self.log = ClientLog()
        self._seed = seed
        self._url = url
        self._secret = jwt_secret
        self._provider = provider
        self._tokens: dict[str, str] = {}
        self._closed = False
        self._session: aiohttp.ClientSession
        name = seed.replace("/", "-").replace("_", "-")
        self.campaigns = (f"{name}-sale", f"{name}-presale")

    def documents(self) -> list[dict[str, Any]]:
        """A flash sale and a presale, in each one offer that sells out and one that does not."""
        arrivals, now = self.load.arrivals, datetime.now(UTC)
        common = {
            "currency": "CNY",
            "opens_at": (now - timedelta(hours=1)).isoformat(),
            "closes_at": (now + timedelta(hours=1)).isoformat(),
            "hold_seconds": HOLD_SECONDS,
            "per_user": PER_USER,
        }
        stock = {SCARCE: max(5, arrivals // 10), PLENTY: 1_000_000}
        sale, presale = self.campaigns
        return [
            {
                **common,
                "id": sale,
                "kind": "flash_sale",
                "offers": [{"sku": sku, "price": 5000, "stock": units} for sku, units in stock.items()],
            },
            {
                **common,
                "id": presale,
                "kind": "presale",
                "balance_opens_at": (now + timedelta(hours=2)).isoformat(),
                "balance_closes_at": (now + timedelta(hours=3)).isoformat(),
                "offers": [
                    {
                        "sku": sku,
                        "price": 5000,
                        "stock": units,
                        "deposit": 100,
                        "deposit_worth": 200,
                        "gifts": [{"sku": GIFT, "first": GIFTS}],
                    }
                    for sku, units in stock.items()
                ],
            },
        ]

    def close(self) -> None:
        """Let nobody come any more, once the load's seconds are over."""
        self._closed = True

    async def run(self) -> None:
        """They come for the load's seconds, and until `close`; returns once all have what they wanted,
        or have given up."""
        seed = random.Random(self._seed).getrandbits(32)
        schedule = poisson(self.load.rate, self.load.seconds + COMES_SECONDS_MAX, seed)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=10)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as self._session:
            loop = asyncio.get_running_loop()
            start, tasks = loop.time(), []
            try:
                for n, due_ns in enumerate(schedule.arrivals_ns):
                    late = start + due_ns / NS - loop.time()
                    if late > 0:
                        await asyncio.sleep(late)
                    if self._closed and due_ns > self.load.seconds * NS:
                        break
                    tasks.append(asyncio.create_task(self._shop(n)))
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _shop(self, n: int) -> None:
        rng = random.Random(f"{self._seed}/{n}")
        campaign = rng.choice(self.campaigns)
        user = f"user-{rng.randrange(max(1, self.load.arrivals))}"
        first = Try(
            "reserve", campaign, user, f"key-{n}", rng.choice((SCARCE, PLENTY)), rng.choice((1, 1, 2)), 0
        )
        made = await self._reserve(first, rng)
        if made.status == 409 and made.code == "sold_out" and rng.random() < self.load.waits:
            await self._wait(made, rng)
        if made.status != 201 or made.reservation is None:
            return
        if rng.random() < self.load.asks_again:
            await self._reserve(replace(made, what="replay"), rng)
        does = rng.random()
        if does < self.load.pays:
            await self._pay(made, rng)
        elif does < self.load.pays + self.load.cancels:
            await asyncio.sleep(rng.random())
            await self._cancel(made, rng)

    async def _reserve(self, of: Try, rng: random.Random) -> Try:
        body = {"sku": of.sku, "quantity": of.quantity}
        path = f"/v1/campaigns/{of.campaign}/reservations"
        made, _ = await self._ask(of, "POST", path, body, rng, {"Idempotency-Key": of.key})
        return made

    async def _wait(self, of: Try, rng: random.Random) -> None:
        body = {"sku": of.sku, "quantity": 1}
        await self._ask(replace(of, what="wait"), "POST", f"/v1/campaigns/{of.campaign}/waitlist", body, rng)

    async def _cancel(self, of: Try, rng: random.Random) -> None:
        await self._ask(replace(of, what="cancel"), "DELETE", f"/v1/reservations/{of.reservation}", None, rng)

    async def _pay(self, of: Try, rng: random.Random) -> None:
        stage = "full" if of.campaign == self.campaigns[0] else "deposit"
        path = f"/v1/reservations/{of.reservation}/payments"
        asked, payment = await self._ask(replace(of, what="ask to pay"), "POST", path, {"stage": stage}, rng)
        if asked.status != 200:
            return
        what = (payment["payment_id"], payment["amount"], payment["currency"])
        goes_astray = rng.random() < self.load.astray
        if not goes_astray:
            await self._provider.charge(*what)
            return
        for step in rng.sample(("forge", "late", "fail before", "twice", "fail after"), 3):
            if step == "forge":
                await self._provider.forge(*what)
            elif step == "late":
                await asyncio.sleep(HOLD_SECONDS + rng.random() * 2)
            elif step == "fail before":
                await self._provider.fail(*what)
            elif step == "twice":
                await asyncio.gather(self._provider.charge(*what), self._provider.charge(*what))
        await self._provider.charge(*what)
        await self._provider.fail(*what)
        await self._provider.say_again(what[0])

    async def _ask(
        self,
        of: Try,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        rng: random.Random,
        headers: dict[str, str] | None = None,
    ) -> tuple[Try, Any]:
        """The last try, and what it was answered: again after no answer, 503 and 429, within patience."""
        until, pause = time.monotonic() + PATIENCE_SECONDS, _PAUSE_SECONDS
        while True:
            one, found = await self._once(of, method, path, body, headers or {})
            if one.status not in (None, 503, 429) or time.monotonic() > until:
                return one, found
            told = found.get("retry_after_s", 0) if isinstance(found, dict) else 0
            await asyncio.sleep(told + pause * (0.5 + rng.random()))
            pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    async def _once(
        self, of: Try, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
    ) -> tuple[Try, Any]:
        one = self.log.begin(of.what, of.campaign, of.user, of.key, of.sku, of.quantity)
        one.reservation = of.reservation
        sent = {"Authorization": f"Bearer {self._token(of.user)}", **headers}
        data = None
        if body is not None:
            data, sent["Content-Type"] = orjson.dumps(body), "application/json"
        found: Any = None
        try:
            async with self._session.request(method, self._url + path, data=data, headers=sent) as answer:
                raw = await answer.read()
                found = orjson.loads(raw)
                one.status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            one.error = f"{type(error).__name__}: {error}"
        except ValueError as error:
            one.error = f"not JSON: {error}"
        one.ended_at = time.monotonic()
        if isinstance(found, dict) and one.status is not None:
            one.code = found.get("code")
            if one.status >= 500:
                one.error = found.get("detail")
            if one.status in (200, 201) and of.what in ("reserve", "replay", "cancel"):
                one.reservation, one.state = found.get("id"), found.get("state")
                one.created_at = found.get("created_at")
        return one, found

    def _token(self, user: str) -> str:
        token = self._tokens.get(user)
        if token is None:
            now_s = int(time.time()) - 600  # whoever's clock is wrong by less believes it, too
            token = make_token(self._secret, user, tier=None, ttl_s=7_200, now_s=now_s)
            self._tokens[user] = token
        return token


async def put_on_sale(url: str, service_key: str, documents: Sequence[dict[str, Any]]) -> None:
    """Create these campaigns; again where the store is still coming back. Raises aiohttp.ClientError."""
    headers = {"Authorization": f"Bearer {service_key}"}
    until = time.monotonic() + PATIENCE_SECONDS
    async with aiohttp.ClientSession() as session:
        for document in documents:
            path = f"{url}/v1/campaigns/{document['id']}"
            while True:
                async with session.put(path, json=document, headers=headers) as answer:
                    if answer.status != 503 or time.monotonic() > until:
                        answer.raise_for_status()
                        break
                await asyncio.sleep(_PAUSE_SECONDS)
