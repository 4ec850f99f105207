"""Shoppers in an open loop: they come when they come, whether or not the service keeps up.

Who gets no answer, or a 503, asks again with the same key, and not before they may. Some pay, through a
provider of ours; some cancel, some ask twice, some stand in line for what is sold out. Some have a main
order, which the shop reports, ask for more add-ons than it entitles to, and give it back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Sequence
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
GRANTS = 2
"""Units of add-ons that a main order entitles to."""
ORDERS_AT_ONCE = 30
GIFT, GIFTS = "gift", 20


@dataclass(frozen=True, slots=True)
class Load:
    """How many come, and what they do."""

    rate: float = 100.0
    """Arrivals a second."""
    seconds: float = 4.0
    pays: float = 0.4
    """The share of those with a reservation that pay."""
    cancels: float = 0.1
    asks_again: float = 0.2
    """With the same key, after they were told."""
    waits: float = 0.1
    """In line, when it is sold out."""
    trades_in: float = 0.2
    """The share of arrivals with a main order, who want add-ons to it."""
    gives_back: float = 0.5
    """Of those: who cancel the main order."""
    astray: float = 0.0
    """The share of payments that come late, twice, out of order, or that somebody forges."""

    @property
    def arrivals(self) -> int:
        return round(self.rate * self.seconds)


class Shoppers:
    """The crowd of one round."""

    def __init__(
        self, load: Load, seed: str, url: str, jwt_secret: str, service_key: str, provider: Provider
    ) -> None:
        self.load = load
        self.log = ClientLog()
        self._seed = seed
        self._url = url
        self._secret = jwt_secret
        self._service_key = service_key
        self._provider = provider
        self._tokens: dict[str, str] = {}
        self._closed = False
        self._session: aiohttp.ClientSession
        name = seed.replace("/", "-").replace("_", "-")
        self._name = name
        self.sale, self.presale, self.trade_in = (
            f"{name}-{kind}" for kind in ("sale", "presale", "trade-in")
        )
        self.campaigns = (self.sale, self.presale, self.trade_in)

    def documents(self) -> list[dict[str, Any]]:
        """A flash sale, a presale and a trade-in, in each one offer that sells out and one that does not."""
        arrivals, now = self.load.arrivals, datetime.now(UTC)
        common = {
            "currency": "CNY",
            "opens_at": (now - timedelta(hours=1)).isoformat(),
            "closes_at": (now + timedelta(hours=1)).isoformat(),
            "hold_seconds": HOLD_SECONDS,
        }
        stock = {SCARCE: max(5, arrivals // 10), PLENTY: 1_000_000}
        return [
            {
                **common,
                "id": self.sale,
                "kind": "flash_sale",
                "per_user": PER_USER,
                "offers": [{"sku": sku, "price": 5000, "stock": units} for sku, units in stock.items()],
            },
            {
                **common,
                "id": self.presale,
                "kind": "presale",
                "per_user": PER_USER,
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
            {
                **common,
                "id": self.trade_in,
                "kind": "trade_in",
                # No quota of a user's, which would keep what the main order's is to keep.
                "entitlement": {"skus": [self._entitling], "min_spend": 1_000, "grants": GRANTS},
                "offers": [{"sku": sku, "price": 500, "stock": units} for sku, units in stock.items()],
            },
        ]

    @property
    def _entitling(self) -> str:
        """The SKU of a main order that entitles to add-ons, in this round's trade-in and no other."""
        return f"{self._name}-tv"

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
        user = f"user-{rng.randrange(max(1, self.load.arrivals))}"
        if rng.random() < self.load.trades_in:
            await self._trade_in(n, user, rng)
            return
        campaign = rng.choice((self.sale, self.presale))
        first = Try(
            "reserve", campaign, user, f"key-{n}", rng.choice((SCARCE, PLENTY)), rng.choice((1, 1, 2)), 0
        )
        made = await self._reserve(first, rng)
        if made.status == 409 and made.code == "sold_out" and rng.random() < self.load.waits:
            await self._wait(made, rng)
        await self._have(made, rng)

    async def _have(self, made: Try, rng: random.Random) -> None:
        """What somebody does who has asked for it."""
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

    async def _trade_in(self, n: int, user: str, rng: random.Random) -> None:
        """The shop reports a main order; its user asks for more add-ons than it entitles to, all at once.
        Some give it back, while they still pay for those; a few have done so before it was reported."""
        of = Try("report order", self.trade_in, user, f"{self._name}-{n}", self._entitling, 1, 0)
        of.order = of.key
        gives_back, early = rng.random() < self.load.gives_back, rng.random() < 0.1
        if gives_back and early:
            await self._give_back(of, rng)
        reported = await self._report(of, rng)
        if reported.status not in (200, 201):
            return
        if rng.random() < self.load.asks_again:
            await self._report(of, rng)
        steps = [self._add_on(of, m, rng.random()) for m in range(rng.randint(1, GRANTS + 2))]
        if gives_back and not early:
            steps.append(self._give_back_and_ask(of, rng))
        await asyncio.gather(*steps)

    async def _add_on(self, of: Try, m: int, seed: float) -> None:
        rng = random.Random(seed)
        asked = replace(
            of,
            what="reserve",
            key=f"key-{of.key}-{m}",
            sku=rng.choice((SCARCE, PLENTY)),
            quantity=rng.choice((1, 1, GRANTS)),
        )
        await self._have(await self._reserve(asked, rng), rng)

    async def _give_back_and_ask(self, of: Try, rng: random.Random) -> None:
        """What was given back entitles to nothing any more."""
        await asyncio.sleep(rng.random() * HOLD_SECONDS)
        if (await self._give_back(of, rng)).status == 200:
            await self._add_on(of, GRANTS + 2, rng.random())

    async def _report(self, of: Try, rng: random.Random) -> Try:
        body = {
            "order_id": of.order,
            "user": of.user,
            "lines": [{"sku": of.sku, "category": "tv", "amount": 5_000}],
            "paid_at": "2026-01-01T00:00:00Z",
        }
        made, _ = await self._ask(of, "POST", "/v1/orders", body, rng)
        return made

    async def _give_back(self, of: Try, rng: random.Random) -> Try:
        path = f"/v1/orders/{of.order}/cancel"
        made, _ = await self._ask(replace(of, what="cancel order"), "POST", path, None, rng)
        return made

    async def _reserve(self, of: Try, rng: random.Random) -> Try:
        body: dict[str, Any] = {"sku": of.sku, "quantity": of.quantity}
        if of.order is not None:
            body["order_id"] = of.order
        path = f"/v1/campaigns/{of.campaign}/reservations"
        made, _ = await self._ask(of, "POST", path, body, rng, {"Idempotency-Key": of.key})
        return made

    async def _wait(self, of: Try, rng: random.Random) -> None:
        body = {"sku": of.sku, "quantity": 1}
        await self._ask(replace(of, what="wait"), "POST", f"/v1/campaigns/{of.campaign}/waitlist", body, rng)

    async def _cancel(self, of: Try, rng: random.Random) -> None:
        await self._ask(replace(of, what="cancel"), "DELETE", f"/v1/reservations/{of.reservation}", None, rng)

    async def _pay(self, of: Try, rng: random.Random) -> None:
        stage = "deposit" if of.campaign == self.presale else "full"
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
        one = self.log.begin(of.what, of.campaign, of.user, of.key, of.sku, of.quantity, of.order)
        one.reservation = of.reservation
        token = self._service_key if of.what in ("report order", "cancel order") else self._token(of.user)
        sent = {"Authorization": f"Bearer {token}", **headers}
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


async def states_of_orders(url: str, service_key: str, orders: Collection[str]) -> dict[str, str]:
    """What the service says of these main orders: the state of each that it knows. Raises
    aiohttp.ClientError."""
    headers = {"Authorization": f"Bearer {service_key}"}
    found: dict[str, str] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=ORDERS_AT_ONCE)) as session:

        async def ask(order: str) -> None:
            async with session.get(f"{url}/v1/orders/{order}", headers=headers) as answer:
                if answer.status != 404:
                    answer.raise_for_status()
                    found[order] = (await answer.json())["state"]

        await asyncio.gather(*map(ask, orders))
    return found
