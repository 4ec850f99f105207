"""How often the sweeper looks."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest.mock import AsyncMock

import pytest
from structlog.testing import capture_logs

from reservation.ids import ReservationId
from reservation.outcomes import StoreUnavailable
from settlement import retry, sweeper
from settlement.patrol import Patrol
from settlement.reconcile import Reconciliation
from settlement.sweeper import BATCH_MAX, Sweeper

OUTAGE_SECONDS = 20.0
LOOK_SECONDS = 0.1


class Enough(BaseException):
    """The test has seen what it wanted to."""


async def test_an_outage_is_not_followed_by_a_rest_of_nine_times_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rest is for what a look took. What was waited for a store that was away is none of it."""
    now, rests = 0.0, list[float]()
    attempts = iter([True, True, False])

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            raise Enough

    async def look() -> int:
        nonlocal now
        is_away = next(attempts)
        now += OUTAGE_SECONDS / 2 if is_away else LOOK_SECONDS
        if is_away:
            raise StoreUnavailable("fenced")
        return 0

    monkeypatch.setattr(sweeper.time, "monotonic", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(Enough):
        await sweeper.again(look, 0.05)
    assert max(rests[:2]) <= retry.WAIT_SECONDS_MAX
    assert rests[2] == pytest.approx(9 * LOOK_SECONDS)


async def test_the_patrol_goes_round_again_after_nineteen_times_as_long_as_it_took_and_no_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, rounds = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def reconcile(*_: Any, **__: Any) -> Reconciliation:
        nonlocal now
        rounds.append(now)
        if len(rounds) == 3:
            raise Enough
        now += LOOK_SECONDS if len(rounds) == 1 else 10 * LOOK_SECONDS
        return Reconciliation()

    reconciler: Any = AsyncMock()
    reconciler.reconcile = reconcile
    others: Any = [AsyncMock() for _ in range(6)]
    *loops, patrolling = Sweeper(*others, Patrol(reconciler, list)).loops()
    for other in loops:
        other.close()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(Enough):
        await patrolling
    first, second, third = rounds
    assert second - first == pytest.approx(LOOK_SECONDS + Patrol.pause_seconds)
    assert third - second == pytest.approx(10 * LOOK_SECONDS * 20)


async def test_what_cannot_be_ended_keeps_nobody_else_and_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, desk, others = 0.0, AsyncMock(), [AsyncMock() for _ in range(6)]
    unreadable = [ReservationId("sale", f"{number:032x}") for number in range(BATCH_MAX + 100)]
    over = ReservationId("sale", "f" * 32)
    ended = []

    async def lapse(one: ReservationId) -> bool:
        if one is not over:
            raise ValueError("what is this?")
        ended.append(one)
        return True

    async def due(limit: int) -> list[ReservationId]:
        return [*unreadable, *(() if ended else (over,))][:limit]

    desk.lapse, desk.due = AsyncMock(side_effect=lapse), due
    store, catalog, *rest = others
    tested: Any = Sweeper(store, catalog, desk, *rest)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with capture_logs() as logs:
        assert [await tested.sweep() for _ in range(3)] == [0, 1, 0]
    assert desk.lapse.await_count == len(unreadable) + 1, "what is not readable is not read all the time"
    assert {line["event"] for line in logs} == {"not_lapsed"}
    assert len(logs) <= 2, "one a second, so that it does not fill the disk"
    now += sweeper.ASIDE_SECONDS
    await tested.sweep()
    assert desk.lapse.await_count == len(unreadable) + 1 + BATCH_MAX
