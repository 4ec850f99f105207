"""`make demo`: a flash sale from nothing to the audit, with simulated shoppers, on real servers."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from doorbuster.shoppers import Log, Mood, Shopper, shop
from doorbuster.tokens import make_token
from reservation.outcomes import Fault

CAMPAIGN = "midnight-drop"
OPENS_IN_SECONDS = 2.0
HOLD_SECONDS = 3
CONNECTIONS_MAX = 200
ARRIVALS_PER_SECOND = 500
"""New shoppers a second once it is open, each with a handful of requests: what one machine can simulate."""
START_SECONDS_MAX = 90.0
END_SECONDS_MAX = 60.0

# Out of 100 shoppers.
MOODS = {Mood.EAGER: 50, Mood.IMPATIENT: 20, Mood.GREEDY: 10, Mood.IDLE: 12, Mood.FICKLE: 6, Mood.BOT: 2}

INVARIANTS = {
    "I1": "sold + held + available = stock, and every counter is what its reservations claim",
    "I2": "sold + held <= stock: nothing was oversold",
    "I3": "nobody has more than their quota",
    "I4": "every acknowledged reservation is exactly one order, in one state",
    "I5": "no order without a reservation",
    "I6": "the same key got the same reservation, every time",
    "I7": "one charge for each sale; every other charge was refunded once",
    "I8": "the backlog drained by itself",
}


_RESERVE_BUCKET = re.compile(
    r'doorbuster_request_duration_seconds_bucket\{le="([^"]+)",method="POST",'
    r'route="/v1/campaigns/\{campaign\}/reservations"'
)


class DemoFailed(Fault):
    """The demo could not run. The message is one line."""


async def run_demo(shoppers: int, seed: int) -> int:
    """Run the demo; 0 when every invariant held."""
    stock = max(10, shoppers // 10)
    print(f"Doorbuster demo: {stock:,} units, {shoppers:,} shoppers, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="doorbuster-demo-") as home:
        data_dir = Path(home) / "data"
        async with _up(data_dir) as (url, settings):
            print(f"  embedded Redis and PostgreSQL, two gateway processes, ready at {url}")
            return await _Sale(url, settings, shoppers, stock, seed).run()


@asynccontextmanager
async def _up(data_dir: Path) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """`doorbuster up` as a process of its own; its URL and settings."""
    data_dir.mkdir()
    with (data_dir / "up.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "doorbuster", "up", "--port", "0", "--workers", "2"),
            *("--data-dir", str(data_dir), "--sandbox"),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        said = ""
        if process.stdout is not None:
            async with asyncio.timeout(START_SECONDS_MAX):
                said = (await process.stdout.readline()).decode().strip()
        if not said.startswith("ready "):
            raise DemoFailed(f"doorbuster up did not start:\n{(data_dir / 'up.log').read_text()}")
        yield said.removeprefix("ready "), json.loads((data_dir / "stack.json").read_text())["settings"]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


class _Sale:
    """One sale, from its creation to its audit."""

    def __init__(self, url: str, settings: dict[str, str], shoppers: int, stock: int, seed: int) -> None:
        self._url = url
        self._settings = settings
        self._random = random.Random(seed)  # noqa: S311 - moods, not secrets
        self._shoppers = shoppers
        self._stock = stock
        self._log = Log()

    async def run(self) -> int:
        opens_at = datetime.now(UTC) + timedelta(seconds=OPENS_IN_SECONDS)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
        async with (
            aiohttp.ClientSession(self._url, connector=connector) as session,
            aiohttp.ClientSession(self._url) as watcher,  # does not queue behind the shoppers
        ):
            await self._create(session, opens_at)
            print(f"  {CAMPAIGN} opens at {opens_at:%H:%M:%S} UTC; unpaid holds last {HOLD_SECONDS} s\n")
            started = time.monotonic()
            progress = asyncio.create_task(self._progress(watcher))
            crowd = [shop(session, one, self._log) for one in self._crowd(opens_at)]
            await asyncio.gather(*crowd)
            seconds = time.monotonic() - started
            drained = await self._ended(session)
            progress.cancel()
            await asyncio.gather(progress, return_exceptions=True)
            audit = await self._get(session, f"/v1/campaigns/{CAMPAIGN}/audit", service=True)
            violations = [(v["invariant"], v["detail"]) for v in audit["campaigns"][0]["violations"]]
            violations += await self._check_log(session, audit["campaigns"][0]["offers"])
            if not drained:
                violations.append(
                    ("I8", f"reservations were still held {END_SECONDS_MAX:g} s after the sale")
                )
            metrics = await self._metrics(session)
        self._report(seconds, audit["campaigns"][0]["offers"], metrics)
        return _verdict(violations)

    async def _create(self, session: aiohttp.ClientSession, opens_at: datetime) -> None:
        phones = self._stock * 6 // 10
        document = {
            "kind": "flash_sale",
            "title": "Midnight drop",
            "currency": "CNY",
            "opens_at": opens_at.isoformat(),
            "closes_at": (opens_at + timedelta(hours=1)).isoformat(),
            "hold_seconds": HOLD_SECONDS,
            "per_user": 2,
            "offers": [
                {
                    "sku": "phone-16",
                    "title": "Phone 16",
                    "price": 599900,
                    "list_price": 649900,
                    "stock": phones,
                    "per_user": 1,
                },
                {"sku": "earbuds", "title": "Earbuds", "price": 49900, "stock": self._stock - phones},
            ],
        }
        async with session.put(f"/v1/campaigns/{CAMPAIGN}", json=document, headers=self._service()) as answer:
            if answer.status != 201:
                raise DemoFailed(f"the campaign was not created: {await answer.text()}")

    def _crowd(self, opens_at: datetime) -> list[Shopper]:
        moods = self._random.choices(list(MOODS), list(MOODS.values()), k=self._shoppers)
        now_s = int(time.time())
        return [
            Shopper(
                user=f"shopper-{number}",
                token=make_token(
                    self._settings["jwt_secret"], f"shopper-{number}", tier=None, ttl_s=3600, now_s=now_s
                ),
                mood=mood,
                campaign=CAMPAIGN,
                opens_at=opens_at,
                arrives_after_s=self._random.random() * self._shoppers / ARRIVALS_PER_SECOND,
                random=random.Random(self._random.random()),  # noqa: S311
            )
            for number, mood in enumerate(moods)
        ]

    async def _progress(self, session: aiohttp.ClientSession) -> None:
        while True:
            campaign = await self._get(session, f"/v1/campaigns/{CAMPAIGN}")
            left = sum(offer["remaining"] for offer in campaign["offers"])
            log = self._log
            print(
                f"  {campaign['server_time'][11:19]}  {campaign['phase']:<9} {log.requests:>7,} requests"
                f"  {len(log.held):>5,} holds  {len(log.paid):>5,} paid  {left:>5,} left",
                flush=True,
            )
            await asyncio.sleep(1)

    async def _ended(self, session: aiohttp.ClientSession) -> bool:
        """Wait until nothing is held any more: paid, cancelled, or expired and swept."""
        try:
            async with asyncio.timeout(END_SECONDS_MAX):
                while True:
                    metrics = await self._metrics(session)
                    held = [v for name, v in metrics.items() if 'state="held"' in name]
                    if not any(held) and metrics.get("doorbuster_outbox_events") == 0:
                        return True
                    await asyncio.sleep(0.2)
        except TimeoutError:
            return False

    async def _check_log(
        self, session: aiohttp.ClientSession, offers: list[dict[str, Any]]
    ) -> list[tuple[str, str]]:
        """What the shoppers were told, against what became of it."""
        log = self._log
        violations = [
            ("I6", f"key {key} made {len(ids)} reservations")
            for key, ids in log.by_key.items()
            if len(ids) > 1
        ]
        violations += [("I4", f"{what}") for what in log.undocumented]
        self._states: dict[str, int] = {}
        gate = asyncio.Semaphore(CONNECTIONS_MAX)

        async def check(name: str, shopper: Shopper) -> None:
            async with gate, session.get(f"/v1/reservations/{name}", headers=shopper.headers) as answer:
                state = (await answer.json())["state"] if answer.status == 200 else f"HTTP {answer.status}"
            self._states[state] = self._states.get(state, 0) + 1
            if state not in {"confirmed", "expired", "cancelled", "refunded"}:
                violations.append(("I4", f"{name} was acknowledged and is {state}"))
            if name in log.paid and state not in {"confirmed", "refunded"}:
                violations.append(("I7", f"{name} was paid for and is {state}"))

        await asyncio.gather(*(check(name, shopper) for name, shopper in log.held.items()))
        sold = sum(offer["sold"] for offer in offers)
        if sold != self._states.get("confirmed", 0):
            violations.append(
                ("I4", f"{sold} units sold, {self._states.get('confirmed', 0)} shoppers were told so")
            )
        return violations

    def _report(self, seconds: float, offers: list[dict[str, Any]], metrics: dict[str, float]) -> None:
        log = self._log
        print(f"\n{log.requests:,} requests in {seconds:.1f} s, shoppers and servers on one machine")
        for code, count in sorted(log.outcomes.items(), key=lambda item: -item[1]):
            print(f"  {code:<22}{count:>8,}")
        latency = sorted(log.reserve_ms)
        p50, p95, p99 = (latency[int(len(latency) * q)] for q in (0.5, 0.95, 0.99))
        print(f"\nreserve, seen by shoppers   p50 {p50:.0f} ms   p95 {p95:.0f} ms   p99 {p99:.0f} ms")
        print(f"  of it in the gateway      p50 {_quantile(metrics, 0.5)}   p99 {_quantile(metrics, 0.99)}")
        became = "   ".join(f"{count:,} {state}" for state, count in sorted(self._states.items()))
        print(f"reservations acknowledged   {len(log.held):,}, of which {became}")
        settled = metrics.get('doorbuster_settled_events_total{type="reserved"}', 0)
        lag = metrics.get("doorbuster_settlement_lag_seconds_sum", 0) / max(1, settled) * 1000
        print(
            f"orders in PostgreSQL        {settled:,.0f}, on average {lag:.0f} ms after the acknowledgement\n"
        )
        print(f"  {'offer':<12}{'stock':>8}{'sold':>8}{'held':>8}{'available':>11}")
        for offer in offers:
            print(
                f"  {offer['sku']:<12}{offer['stock']:>8,}{offer['sold']:>8,}"
                f"{offer['held']:>8,}{offer['available']:>11,}"
            )

    async def _metrics(self, session: aiohttp.ClientSession) -> dict[str, float]:
        async with session.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    async def _get(self, session: aiohttp.ClientSession, path: str, *, service: bool = False) -> Any:
        async with session.get(path, headers=self._service() if service else {}) as answer:
            if answer.status != 200:
                raise DemoFailed(f"{path} answered {answer.status}: {await answer.text()}")
            return await answer.json()

    def _service(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._settings['service_key']}"}


def _quantile(metrics: dict[str, float], q: float) -> str:
    """The bound below which this share of reserve requests was answered, from the gateway's histogram."""
    counts: Counter[float] = Counter()
    for name, count in metrics.items():
        match = _RESERVE_BUCKET.match(name)
        if match is not None:
            counts[float(match[1].replace("+Inf", "inf"))] += int(count)
    for bound, count in sorted(counts.items()):
        if count >= q * counts[float("inf")]:
            return f"<= {bound * 1000:g} ms"
    return "unknown"


def _verdict(violations: list[tuple[str, str]]) -> int:
    print("\naudit, from Redis, PostgreSQL and the shoppers' own log")
    for name, promise in INVARIANTS.items():
        broken = [detail for invariant, detail in violations if invariant == name]
        print(f"  {name} {'BROKEN' if broken else 'held  '}  {promise}")
        for detail in broken[:10]:
            print(f"      {detail}")
    print("\nEvery invariant held." if not violations else f"\n{len(violations)} violations.")
    return 1 if violations else 0
