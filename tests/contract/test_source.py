"""One suite over the events' way through RabbitMQ and through the broker that the simulation has made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from reservation.envelope import Envelope
from settlement.rabbit import DELIVERIES_MAX, EVENTS, Broker, RabbitSource
from settlement.relay import Publisher
from settlement.source import Batch, Source
from tests.contract.instant import instant_wire, process
from tests.simulation.broker import BrokerServer, MemoryBroker, MemorySource


@dataclass
class BrokerBench:
    publisher: Publisher
    source: Callable[[], Source]


@pytest.fixture(params=["memory", "rabbit"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[BrokerBench]:
    if request.param == "memory":
        wire, server = instant_wire(), BrokerServer()
        yield BrokerBench(
            MemoryBroker(wire, process(wire), server), lambda: MemorySource(wire, process(wire), server)
        )
        return
    url = request.getfixturevalue("amqp_url")
    broker = Broker(url)
    await broker.open()
    await broker.events.purge()
    await broker.dead.purge()
    yield BrokerBench(broker, lambda: RabbitSource(Broker(url)))
    await broker.close()


def event(number: int) -> Envelope:
    return {"type": "test", "id": f"test.{number}"}


async def next_of(source: Source) -> Batch:
    async with asyncio.timeout(20):
        return await anext(aiter(source.batches()))


def numbers(batch: Batch) -> list[str]:
    return [one["id"] for one in batch.envelopes]


async def all_of(source: Source, count: int) -> list[str]:
    """So many events, in as many batches as they come in; done, all of them."""
    found: list[str] = []
    while len(found) < count:
        batch = await next_of(source)
        found += numbers(batch)
        await batch.done()
    return found


async def test_what_was_published_comes_in_order_and_what_is_done_never_again(bench: BrokerBench) -> None:
    await bench.publisher.publish(EVENTS, [event(1), event(2)])
    await bench.publisher.publish(EVENTS, [event(3)])
    source = bench.source()
    await source.open()
    assert await all_of(source, 3) == ["test.1", "test.2", "test.3"]
    await source.close()
    other = bench.source()
    await other.open()
    await bench.publisher.publish(EVENTS, [event(4)])
    assert await all_of(other, 1) == ["test.4"]
    await other.close()


async def test_what_is_not_done_comes_to_another_when_its_reader_goes(bench: BrokerBench) -> None:
    await bench.publisher.publish(EVENTS, [event(1)])
    source = bench.source()
    await source.open()
    assert numbers(await next_of(source)) == ["test.1"]
    await source.close()
    other = bench.source()
    await other.open()
    assert await all_of(other, 1) == ["test.1"]
    await other.close()


async def test_what_nobody_ever_finishes_is_a_dead_letter_and_can_be_sent_again(bench: BrokerBench) -> None:
    await bench.publisher.publish(EVENTS, [event(1)])
    for _ in range(DELIVERIES_MAX + 1):
        source = bench.source()
        await source.open()
        await next_of(source)
        await source.close()
    source = bench.source()
    await source.open()
    async with asyncio.timeout(20):
        while not await source.dead_letters.look(10):
            await asyncio.sleep(0.05)
    assert await source.dead_letters.replay(10) == 1
    assert await all_of(source, 1) == ["test.1"]
    await source.close()


async def test_what_was_set_aside_is_looked_at_and_sent_again(bench: BrokerBench) -> None:
    source = bench.source()
    await source.open()
    await source.dead_letters.put(event(1), "not now")
    (letter,) = await source.dead_letters.look(10)
    assert (letter.envelope, letter.reason) == (event(1), "not now")
    assert await source.dead_letters.replay(10) == 1
    assert await source.dead_letters.look(10) == []
    assert await all_of(source, 1) == ["test.1"]
    await source.close()
