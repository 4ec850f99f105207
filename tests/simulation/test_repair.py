"""What simulation has found in repair, step by step."""

from __future__ import annotations

import random
from typing import Any

from reservation.administration import Administration
from reservation.catalog import Catalog, parse_campaign
from reservation.clock import StoreClock
from reservation.desk import Desk, Request, Reserved
from reservation.ids import PaymentId, Stage
from reservation.main_order import MainOrder
from reservation.order_desk import OrderDesk
from reservation.outcomes import Fault
from reservation.paying import Notice, NoticeType
from reservation.record import State
from reservation.steps import Event
from settlement.reconcile import Reconciler
from settlement.retry import patiently
from tests.simulation.book import BookServer, MemoryBook
from tests.simulation.loop import START_SECONDS, VirtualLoop, run
from tests.simulation.plan import at
from tests.simulation.store import StoreClient, StoreServer
from tests.simulation.wire import CALM, Process, Trace, Wire

TRADE_IN: dict[str, Any] = {
    "id": "trade-in",
    "kind": "trade_in",
    "currency": "CNY",
    "opens_at": at(-1),
    "closes_at": at(3_600),
    "entitlement": {"min_spend": 1, "grants": 1},
    "offers": [{"sku": "case", "price": 100, "stock": 1}],
}


def test_a_cancelled_main_order_takes_back_what_comes_back_after_it() -> None:
    """The sweeper tells campaigns of a main order as soon as that is there again: so that comes last."""

    async def life(loop: VirtualLoop) -> None:
        wire = Wire(loop, random.Random(1), CALM, Trace(loop))
        server = StoreServer(lambda: int((START_SECONDS + loop.time()) * 1000))
        book_server = BookServer(loop.time, random.Random(1))
        process = Process(loop, "test")
        store, book = StoreClient(wire, process, server), MemoryBook(wire, process, book_server)
        clock = StoreClock()
        catalog = Catalog(store, clock)
        desk = Desk(store, catalog, clock, book)
        orders = OrderDesk(store, catalog, desk)
        await Administration(store, catalog, book).put(parse_campaign(TRADE_IN))
        order = MainOrder.unpack("order-1", 0, ORDER)
        await store.record_order("order-1", 0, order.pack(), unfinished=False, event=True)
        made = await desk.reserve("trade-in", "ann", None, "key", Request("case", 1, "order-1"))
        assert isinstance(made, Reserved)
        one = made.reservation.id
        await desk.request_payment(one, "ann", Stage.FULL)
        paid = Notice(NoticeType.PAYMENT_SUCCEEDED, Stage.FULL, 100, "CNY", "ref")
        await desk.take_notice(PaymentId(one, Stage.FULL), paid)
        cancelled = MainOrder.unpack("order-1", 0, (await the_order(store)).cancelled().pack())
        await store.record_order("order-1", 2, cancelled.pack(), unfinished=True, event=True)
        await book.settle(list(server.memory.stream.values()))

        server.lose(0)
        finishing = process.start(sweep(orders))
        found = await Reconciler(store, book).reconcile(["trade-in"], repair=True, lift=True)
        assert found.ok, found.differences
        await finishing
        after = await store.reservation(one)
        assert after is not None
        assert (after.state, after.facts.received) == (State.REFUNDED, 0)
        last = list(server.memory.stream.values())[-1]
        assert last["type"] == Event.TAKEN_BACK

    run(life, random.Random(1))


ORDER = b'{"state":"paid","user":"ann","lines":[["tv",null,100]],"paid_at":1800000000000,"campaigns":[]}'


async def the_order(store: StoreClient) -> MainOrder:
    stored = await store.order("order-1")
    assert stored is not None
    return MainOrder.unpack("order-1", stored.version, stored.body)


async def sweep(orders: OrderDesk) -> None:
    """A sweeper that is always there first."""
    while not await orders.unfinished():
        pass
    await patiently(lambda: orders.finish("order-1"), Fault)
