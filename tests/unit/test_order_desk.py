"""Main orders on the model: what random lives have found."""

from __future__ import annotations

from typing import Any

from reservation.administration import Administration
from reservation.campaign import rfc3339
from reservation.catalog import Catalog, parse_campaign
from reservation.desk import Desk, Request, Reserved
from reservation.kernel import Snapshot
from reservation.main_order import ReportedOrder
from reservation.model import ModelStore
from reservation.order_desk import OrderDesk
from reservation.outcomes import Refusal
from reservation.validation import parse
from tests.properties.clock import START_MS, FrozenClock


class NothingRemembered:
    async def remembers(self, campaign: str) -> bool:
        return False


def add_ons(min_spend: int) -> dict[str, Any]:
    return {
        "id": "add-ons", "kind": "trade_in", "currency": "CNY",
        "opens_at": rfc3339(START_MS), "closes_at": rfc3339(START_MS + 10**6),
        "entitlement": {"min_spend": min_spend, "grants": 2},
        "offers": [{"sku": "case", "price": 100, "stock": 5}],
    }  # fmt: skip


def report(user: str) -> ReportedOrder:
    lines = [{"sku": "tv", "amount": 100}]
    found = {"order_id": "o", "user": user, "lines": lines, "paid_at": rfc3339(START_MS)}
    return parse(ReportedOrder, found)


async def test_a_report_for_another_user_changes_nothing() -> None:
    """Not even what a change of the campaign's conditions would by now mean for the order."""
    clock = FrozenClock()
    store = ModelStore(clock.now_ms)
    catalog = Catalog(store, clock)
    desk = Desk(store, catalog, clock)
    orders, office = OrderDesk(store, catalog, desk), Administration(store, catalog, NothingRemembered())
    await office.put(parse_campaign(add_ons(min_spend=100)))
    await orders.report(report("ann"))
    reserved = await desk.reserve("add-ons", "ann", None, "k", Request("case", 2, "o"))
    assert isinstance(reserved, Reserved)
    await office.put(parse_campaign(add_ons(min_spend=500)))

    async def all_there_is() -> tuple[object, Snapshot | None]:
        return await store.order("o"), await store.snapshot("add-ons")

    before = await all_there_is()
    assert isinstance(await orders.report(report("dan")), Refusal)
    assert await all_there_is() == before
