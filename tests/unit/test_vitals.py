"""What every role tells of itself."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from doorbuster import vitals
from doorbuster.gathered import Gathered
from doorbuster.vitals import StoreMetrics, Vitals
from reservation.observer import Failure
from reservation.pipe import Waiting
from settlement.book import Connections
from tests.counts import counted, rising
from tests.stack import eventually


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "LOOK_SECONDS", 0.01)


async def looks(role: str) -> None:
    """Return when there has been another look."""
    name = "doorbuster_event_loop_lag_seconds_count"
    before = counted(name, role=role)

    async def count() -> float:
        return counted(name, role=role)

    await eventually(count, lambda found: found > before)


async def test_a_loop_that_is_held_up_is_told_to_lag() -> None:
    async with Vitals("of-a-test").told():
        await looks("of-a-test")
        lag = {"name": "doorbuster_event_loop_lag_seconds_sum", "role": "of-a-test"}
        with rising(**lag) as at_rest:
            await looks("of-a-test")
        with rising(**lag) as held_up:
            time.sleep(0.3)
            await looks("of-a-test")
    assert at_rest.by < 0.2 < held_up.by


async def test_what_the_collector_takes_is_told_while_the_process_lives_and_no_longer() -> None:
    name = "doorbuster_gc_pause_seconds_count"
    async with Vitals("of-a-test").told():
        with rising(name, role="of-a-test") as living:
            gc.collect()
            await looks("of-a-test")
            await looks("of-a-test")
    with rising(name, role="of-a-test") as ended:
        gc.collect()
    assert living.by >= 1
    assert ended.by == 0
    assert counted("doorbuster_gc_pause_seconds_sum", role="of-a-test") > 0


async def test_connections_of_all_pools_are_counted_together() -> None:
    class Pool:
        def connections(self) -> Connections:
            return Connections(used=2, idle=1, waiting=4)

    found = Vitals("of-a-test")
    for _ in range(2):
        found.mind(cast(Any, Pool()))
    async with found.told():
        await looks("of-a-test")
        await looks("of-a-test")
    states = {
        state: counted("doorbuster_book_connections", role="of-a-test", state=state)
        for state in ("used", "idle", "waiting")
    }
    assert states == {"used": 4, "idle": 2, "waiting": 8}


async def test_whoever_wants_to_is_asked_at_each_look() -> None:
    found, asked = Vitals("of-a-test"), asyncio.Event()
    found.look(asked.set)
    async with found.told(), asyncio.timeout(10):
        await asked.wait()


class Asked(Waiting):
    def __init__(self, name: str, asked: int = 1) -> None:
        self.name, self._asked = name, asked

    @property
    def asked(self) -> int:
        return self._asked


def test_each_command_of_a_batch_is_observed_and_each_group_by_its_size() -> None:
    metrics = StoreMetrics("of-a-batch")
    batch = [Asked("reserve", 200), Asked("get"), Asked("reserve", 3), Asked("get"), Asked("move")]
    with rising("doorbuster_reserve_group_reservations_sum") as reservations:
        metrics.answered(batch, 0.02)
        metrics.answered([Asked("move")], 0.5)
        metrics.tell()
    took = {
        name: (
            counted("doorbuster_store_command_duration_seconds_count", role="of-a-batch", command=name),
            counted("doorbuster_store_command_duration_seconds_sum", role="of-a-batch", command=name),
        )
        for name in ("reserve", "get", "move")
    }
    assert took == {
        "reserve": (2, pytest.approx(0.04)),
        "get": (2, pytest.approx(0.04)),
        "move": (2, pytest.approx(0.52)),
    }
    assert reservations.by == 203
    assert counted("doorbuster_store_batch_commands_count", role="of-a-batch") == 2
    assert counted("doorbuster_store_batch_commands_sum", role="of-a-batch") == 6


def test_a_store_that_is_asked_without_end_is_told_of_without_being_asked_to() -> None:
    metrics = StoreMetrics("of-many-batches")
    for _ in range(3 * vitals.UNTOLD_BATCHES_MAX + 1):
        metrics.answered([Asked("get")], 0.001)
    told = counted("doorbuster_store_batch_commands_count", role="of-many-batches")
    assert told == 3 * vitals.UNTOLD_BATCHES_MAX


def test_what_is_gathered_is_as_if_observed_one_by_one() -> None:
    found = []
    for name in ("gathered", "singly"):
        registry = CollectorRegistry()
        histogram = Histogram("seconds", "Of a test.", ["of"], buckets=(0.001, 0.5, 10), registry=registry)
        child = histogram.labels("x")
        gathered = Gathered(child)
        for value, times in ((0.0005, 1), (0.001, 3), (0.3, 2), (12.0, 1), (10.0, 2)):
            if name == "gathered":
                gathered.note(value, times)
            else:
                for _ in range(times):
                    child.observe(value)
            if value == 0.3:
                gathered.tell()
        gathered.tell()
        gathered.tell()
        found.append([(one.name, one.labels, one.value) for one in next(iter(registry.collect())).samples])
    assert found[0] == found[1]


def test_every_reason_to_fail_is_counted_from_nothing() -> None:
    metrics = StoreMetrics("of-failures")
    metrics.failed(Failure.LOST, 3)
    found = {
        reason: REGISTRY.get_sample_value(
            "doorbuster_store_failures_total", {"role": "of-failures", "reason": reason}
        )
        for reason in Failure
    }
    assert found == dict.fromkeys(Failure, 0) | {Failure.LOST: 3}
