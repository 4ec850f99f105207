"""One suite over the outbox in Redis and the one that the simulation has made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import orjson
import pytest

from reservation import outbox as real
from reservation.kernel import Store
from reservation.main_order import MainOrder, OrderState
from reservation.outbox import Outbox
from reservation.record import State
from reservation.redis_store import RedisStore
from reservation.steps import Event
from settlement.projection import Rows
from settlement.source import Reader
from tests.conftest import empty_redis
from tests.contract.conftest import Bench
from tests.contract.instant import instant_wire, process
from tests.contract.test_kernel import SALE, configure, first, then
from tests.simulation.outbox import MemoryOutbox
from tests.simulation.store import StoreClient, StoreServer

IDLE_MS = 100


@dataclass
class OutboxBench:
    """A store, readers of its outbox, a clock that goes on, and a way to empty it all."""

    store: Store
    reader: Callable[[str], Reader]
    let_pass: Callable[[int], Awaitable[None]]
    empty: Callable[[], Awaitable[None]]

    @property
    def kernel(self) -> Bench:
        async def no_events() -> list[tuple[str, str]]:
            return []

        return Bench(self.store, self.let_pass, no_events)


@pytest.fixture(params=["memory", "redis"])
async def bench(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OutboxBench]:
    if request.param == "memory":
        clock = [1_000_000_000_000]
        wire = instant_wire()
        server = StoreServer(lambda: clock[0])

        async def tick(ms: int) -> None:
            clock[0] += real.IDLE_MS_MIN if ms >= IDLE_MS else ms

        async def lose_all() -> None:
            server.lose(0)

        yield OutboxBench(
            StoreClient(wire, process(wire), server),
            lambda name: MemoryOutbox(wire, process(wire, name), server),
            tick,
            lose_all,
        )
        return
    monkeypatch.setattr(real, "IDLE_MS_MIN", IDLE_MS)
    async with empty_redis(request.getfixturevalue("redis_server_url")) as client:

        async def sleep(ms: int) -> None:
            await asyncio.sleep(ms / 1000)

        async def flush() -> None:
            await client.flushall()

        yield OutboxBench(RedisStore(client), lambda name: Outbox(client, name), sleep, flush)


async def opened(bench: OutboxBench, name: str) -> Reader:
    reader = bench.reader(name)
    await reader.open()
    return reader


async def test_what_was_written_is_read_once_and_in_order(bench: OutboxBench) -> None:
    ann, bob = await opened(bench, "ann"), await opened(bench, "bob")
    await configure(bench.kernel)
    await bench.store.reserve(*first())
    entries = await ann.next()
    assert [entry.envelope["type"] for entry in entries] == ["campaign_changed", "reserved"]
    moved = await bench.store.reserve(*first("other"))
    assert moved.reservation is not None
    (entry,) = await bob.next()
    assert entry.envelope["who"] == [moved.reservation.id.digest, "ann"]


async def test_what_was_not_finished_is_taken_over_after_a_while_and_not_before(bench: OutboxBench) -> None:
    ann, bob = await opened(bench, "ann"), await opened(bench, "bob")
    await configure(bench.kernel)
    (taken,) = await ann.next()
    await bench.store.reserve(*first())
    (fresh,) = await bob.next()
    assert fresh.envelope["type"] == "reserved"
    await bench.let_pass(2 * IDLE_MS)
    cat = await opened(bench, "cat")
    again = {entry.entry_id for entry in await cat.next()}
    assert again == {taken.entry_id, fresh.entry_id}


async def test_what_is_done_is_gone_and_done_twice_is_harmless(bench: OutboxBench) -> None:
    ann = await opened(bench, "ann")
    await configure(bench.kernel)
    entries = await ann.next()
    await ann.done(entries)
    await ann.done(entries)
    await bench.let_pass(2 * IDLE_MS)
    bob = await opened(bench, "bob")
    await bench.store.reserve(*first())
    assert [entry.envelope["type"] for entry in await bob.next()] == ["reserved"]


async def test_a_store_that_was_emptied_is_read_from_its_new_beginning(bench: OutboxBench) -> None:
    ann = await opened(bench, "ann")
    await configure(bench.kernel)
    old = await ann.next()
    await bench.empty()
    await configure(bench.kernel)
    found = await ann.next() or await ann.next()
    assert [entry.envelope["type"] for entry in found] == ["campaign_changed"]
    await ann.done(old)


async def test_every_sort_of_event_becomes_the_same_rows(bench: OutboxBench) -> None:
    ann = await opened(bench, "ann")
    await configure(bench.kernel)
    made = await bench.store.reserve(*first(n=2))
    moved = await bench.store.move(then(made, State.CANCELLED))
    assert moved.reservation is not None
    await bench.store.restate(moved.reservation.id, Event.RESTATED)
    order = MainOrder("order-1", OrderState.PAID, "ann")
    await bench.store.record_order("order-1", 0, order.pack(), unfinished=True, event=True)
    entries = await ann.next()
    envelopes = sorted((entry.envelope for entry in entries), key=lambda one: str(one["type"]))
    kinds = ["campaign_changed", "cancelled", "main_order_changed", "reserved", "restated"]
    assert [one["type"] for one in envelopes] == kinds
    rows = Rows(envelopes)
    assert orjson.loads(rows.campaigns[0])["id"] == SALE
    assert orjson.loads(rows.main_orders[0])["user"] == "ann"
    name = str(moved.reservation.id)
    seen = [orjson.loads(row) for row in rows.reservations]
    assert [(row["id"], row["version"], row["state"], row["quantity"]) for row in seen] == [
        ([name], 2, "cancelled", 2),
        ([name], 1, "held", 2),
        ([name], 1, "cancelled", 2),
        ([name], 2, "cancelled", 2),
    ]
    held, ended = seen[1]["record"], seen[3]["record"]
    assert held["claims"] == [["stock/phone", 2]]
    assert held["deadline"] == made.now_ms + 60_000
    assert (ended["claims"], ended["deadline"], ended["fingerprint"]) == ([], 0, "phone/2")
