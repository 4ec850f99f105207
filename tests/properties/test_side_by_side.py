"""Whatever happens, in whatever order: the scripts and the model do the same, and every invariant holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop
from hypothesis import given

from reservation.ids import PaymentId
from reservation.paying import Notice, NoticeType
from reservation.record import RefundStatus
from reservation.redis_store import connect_redis
from tests.properties.campaigns import LONG_AFTER
from tests.properties.clock import START_MS, FrozenClock, TimeFile
from tests.properties.conftest import profile
from tests.properties.invariants import History, check, check_over, check_served
from tests.properties.reached import REACHED
from tests.properties.sequences import Sequence, sequences
from tests.properties.steps import Serve, Step, finish, go_on_to, put, sweep
from tests.properties.worlds import RedisWorld, Seen, SideBySide, World

Bed = tuple[asyncio.Runner, str, TimeFile]


@pytest.fixture(scope="module")
def bed(redis_at_will: tuple[str, TimeFile]) -> Iterator[Bed]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner, *redis_at_will


def test_the_stores_clock_is_the_one_that_we_hold(bed: Bed) -> None:
    runner, url, file = bed

    async def look() -> None:
        client = connect_redis(url)
        clock = FrozenClock(file.write)
        for ms in (START_MS, START_MS + 1, START_MS + 999, START_MS + 86_400_000 + 711):
            clock.set(ms)
            for _ in range(3):
                seconds, microseconds = await client.time()
                assert seconds * 1000 + microseconds // 1000 == ms
                await asyncio.sleep(0.005)
            (found,) = await client.eval("return {redis.call('TIME')[1] * 1}", 0)
            assert found == ms // 1000
        await client.aclose()

    runner.run(look())


@pytest.mark.timeout(0)  # bounded by the number of sequences, which may be any
@given(sequences())
@profile
def test_the_scripts_and_the_model_live_the_same_lives(bed: Bed, sequence: Sequence) -> None:
    runner, url, file = bed
    try:
        runner.run(live(url, file, sequence))
    except Exception as error:
        error.add_note(
            "\n".join(["Campaigns and steps:", *map(repr, (*sequence.documents, *sequence.steps))])
        )
        raise


async def live(url: str, file: TimeFile, sequence: Sequence) -> None:
    """A sequence in both worlds, looked at after every step, and brought to its end."""
    REACHED.begin()
    for kind in sorted({document["kind"] for document in sequence.documents}):
        REACHED.note(f"a {kind} in it")
    client = connect_redis(url)
    try:
        await client.flushall()
        world = RedisWorld(client, FrozenClock(file.write))
        both = SideBySide(world, [document["id"] for document in sequence.documents])
        history = History()
        for document in sequence.documents:
            await both.take(put(document))
        seen = await both.look()
        check(None, None, seen, None, history)
        news = True
        for number, (step, stale, amid) in enumerate(sequence.steps, 1):
            act = step.act(seen)
            if act is None:
                continue
            REACHED.step()
            news = news or any(event.type == "campaign_changed" for event in seen.all_events)
            if news and not stale:
                await both.take(lambda world: world.catalog.refresh())
                news = False
            result = await both.take(act, amid.act(seen) if amid else None)
            before, seen = seen, await both.look()
            with blamed_on(number, step):
                check(None if amid else step, before, seen, result, history)
                if isinstance(step, Serve):
                    check_served(before, seen, alone=amid is None)
        await end(both, seen, history)
    finally:
        await client.aclose()


@contextmanager
def blamed_on(number: int, step: Step) -> Iterator[None]:
    """What goes wrong in here went wrong in this step."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"after step {number}, {step}")
        raise


async def end(both: SideBySide, seen: Seen, history: History) -> None:
    """Long after: what is due happens, what is unfinished is finished, what is owed is given back."""

    async def then(act: Callable[[World], Awaitable[object]]) -> Seen:
        await both.take(act)
        now = await both.look()
        check(None, None, now, None, history)
        return now

    await then(lambda world: world.catalog.refresh())
    await then(finish)
    await then(lambda world: go_on_to(world, LONG_AFTER))
    await then(sweep)
    seen = await then(lambda world: world.waitlist.serve())
    check_over(seen)
    for payment, notice in refunds_to_make(seen):
        seen = await then(lambda world, p=payment, n=notice: world.desk.take_notice(p, n))  # type: ignore[misc]
    assert not refunds_to_make(seen), "every refund is made in the end"
    for campaign in both.campaigns:
        model, redis = [await world.store.snapshot(campaign) for world in both.worlds]
        assert model is not None
        assert redis is not None
        assert (model.used, model.caps, model.tally) == (redis.used, redis.caps, redis.tally)
        by_id = [sorted(one.reservations, key=lambda one: one.id) for one in (model, redis)]
        assert by_id[0] == by_id[1]


def refunds_to_make(seen: Seen) -> list[tuple[PaymentId, Notice]]:
    """What is still to be given back, and what the provider says when it has been."""
    return [
        (
            PaymentId(one.id, refund.payment),
            Notice(NoticeType.REFUND_SUCCEEDED, refund.payment, refund.amount, "CNY", "r", refund.name),
        )
        for one in seen.reservations
        for refund in one.facts.refunds.values()
        if refund.status is RefundStatus.PENDING
    ]
