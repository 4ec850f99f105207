"""Under real load, in a real Prometheus: every panel and every alert has data, and alerts fire and end.

One deployment is watched from its start to its end, so the tests below build on each other, in their order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from monitoring.dashboards import DASHBOARDS
from tests.monitoring import faults
from tests.monitoring.crowd import FLASH, Crowd, shopping
from tests.monitoring.faults import Fault
from tests.monitoring.promql import selectors
from tests.monitoring.scaled import PROMETHEUS
from tests.monitoring.watched import Watched, watched

pytestmark = pytest.mark.asyncio(loop_scope="module")
FIRES_SECONDS_MAX, ENDS_SECONDS_MAX = 120.0, 60.0
SELLS_OUT_SECONDS_MAX = 60.0
SOLD_OUT_MIN = 150
"""Shoppers who are told so."""
OF_THE_MACHINE = {"HostCpu", "HostMemory", "HostDiskFull", "HostDiskFills", "EventLoopLag", "SaleSlow"}
OF_THE_MACHINE |= {"LatencyBurnsFast", "LatencyBurns", "LatencyBurnsSlowly"}
"""What a busy machine does, whoever runs on it besides."""
ROUNDS: list[dict[Fault, tuple[str, ...]]] = [
    # First: the shorter the hour is that there was, the sooner there are many slow answers in it.
    {
        faults.store_slow: ("SaleSlow", "LatencyBurnsFast"),
        faults.relay_ending: ("RoleFlapping",),
    },
    {
        faults.counter_changed_by_hand: ("ConservationDrift",),
        faults.reservation_deleted: ("ReconciliationDifferences",),
        faults.provider_down: ("RefundsStuck",),
        faults.merchant_down: ("NotificationsStuck",),
        faults.forger: ("PaymentNoticesRefused",),
        faults.poison: ("DeadLetters",),
        faults.memory_used_up: ("RedisMemory",),
        faults.clients_too_many: ("RedisRefusesConnections",),
        faults.connections_taken: ("PostgresConnections",),
        faults.standby_behind: ("PostgresReplicaLag",),
    },
    {
        faults.broker_full: ("RabbitMemoryAlarm", "RabbitDiskAlarm", "OutboxStalled", "OutboxOld"),
        faults.gateways_dying: ("GatewayFlapping",),
        faults.loop_held_up: ("EventLoopLag",),
        faults.replica_hanging: ("RedisReplicaLag",),
        faults.exporter_away: ("TargetDown",),
    },
    {
        faults.worker_gone: ("RoleGone", "SettlementStalled", "RabbitQueueGrows"),
        faults.replica_away: ("RedisReplicaAway", "RedisDown"),
        faults.standby_away: ("PostgresReplicaAway",),
    },
    # By itself: what a worker settles before it is scraped for the first time, it was never seen to settle.
    {faults.book_down: ("PostgresDown",)},
    {faults.store_killed: ("StoreAway", "SaleFailing", "CampaignFailing", "AvailabilityBurnsFast")},
    {faults.store_back_with_less: ("StoreFenced",)},
]
"""Faults that do not disturb each other break together."""
AFTERWARDS: dict[Fault, tuple[str, ...]] = {faults.book_down: ("SettlementLag",)}
"""What fires when a fault is mended: then what was held up comes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment() -> AsyncIterator[Watched]:
    async with watched() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowd(deployment: Watched) -> AsyncIterator[Crowd]:
    async with shopping(deployment) as found:
        yield found


def alerts() -> dict[str, str]:
    """Expressions by alert."""
    found: dict[str, str] = {}
    for file in PROMETHEUS.glob("*.rules.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            found |= {rule["alert"]: rule["expr"] for rule in group["rules"] if "alert" in rule}
    return found


async def test_a_sale_that_sells_out_fires_nothing(deployment: Watched, crowd: Crowd) -> None:
    sold_out = f'doorbuster_reservations_total{{campaign="{FLASH}", outcome="sold_out"}} > {SOLD_OUT_MIN}'
    async with asyncio.timeout(SELLS_OUT_SECONDS_MAX):
        while not await deployment.prometheus.now(sold_out):
            assert await deployment.prometheus.firing() <= OF_THE_MACHINE
            await asyncio.sleep(0.5)


async def fires_and_ends(deployment: Watched, crowd: Crowd, fault: Fault, expected: tuple[str, ...]) -> None:
    prometheus = deployment.prometheus
    async with fault(deployment, crowd):
        await asyncio.gather(
            *(prometheus.until(alert, fires=True, seconds_max=FIRES_SECONDS_MAX) for alert in expected)
        )
    later = AFTERWARDS.get(fault, ())
    await asyncio.gather(
        *(prometheus.until(alert, fires=True, seconds_max=FIRES_SECONDS_MAX) for alert in later)
    )
    await asyncio.gather(
        *(prometheus.until(alert, fires=False, seconds_max=ENDS_SECONDS_MAX) for alert in (*expected, *later))
    )


@pytest.mark.parametrize("broken", ROUNDS, ids=lambda broken: "+".join(fault.__name__ for fault in broken))
async def test_each_alert_fires_when_its_fault_is_there_and_ends_when_it_is_mended(
    deployment: Watched, crowd: Crowd, broken: dict[Fault, tuple[str, ...]]
) -> None:
    done = await asyncio.gather(
        *(fires_and_ends(deployment, crowd, fault, expected) for fault, expected in broken.items()),
        return_exceptions=True,
    )
    missed = [
        f"{fault.__name__}: {type(error).__name__}: {error}"
        for fault, error in zip(broken, done, strict=True)
        if error is not None
    ]
    assert not missed


async def test_every_panel_has_had_data(deployment: Watched) -> None:
    missing: list[str] = []
    for name, make in DASHBOARDS.items():
        for panel in make()["panels"]:
            for target in panel.get("targets", []):
                promql = filled(target["expr"])
                if not await deployment.prometheus.ever(promql):
                    missing.append(f"{name}, {panel['title']}, {target['legendFormat']}: {promql}")
    assert not missing, "\n".join(missing)


def filled(promql: str) -> str:
    """A panel's query, as Grafana would ask it of a sale of a minute."""
    chosen = {"$campaign": FLASH, "$sku": ".+", "$__rate_interval": "4s", "$__range": "2m"}
    if '=~"$campaign"' in promql:
        chosen["$campaign"] = ".+"
    return re.sub(r"\$\w+", lambda found: chosen[found[0]], promql)


async def test_every_alert_has_had_data(deployment: Watched) -> None:
    asked: dict[str, list[Any]] = {}
    for alert, expr in alerts().items():
        for selector in selectors(expr):
            if not await deployment.prometheus.ever(selector):
                asked.setdefault(alert, []).append(selector)
    assert not asked, asked
