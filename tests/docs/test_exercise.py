"""ARCHITECTURE's exercise: another kind is one module and one registration."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.openapi import describe
from reservation.administration import Administration
from reservation.campaign import rfc3339
from reservation.catalog import Catalog, parse_campaign
from reservation.clock import StoreClock
from reservation.desk import Desk, Request, Reserved
from reservation.ids import Stage
from reservation.kinds import KINDS
from reservation.model import ModelStore
from reservation.paying import Notice, NoticeType
from reservation.record import State
from reservation.steps import due

TEXT = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")


class Forgetful:
    async def remembers(self, campaign: str) -> bool:
        return False


@pytest.fixture
def volume_sale(monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert code
    module = ModuleType("volume_sale")
    monkeypatch.setitem(sys.modules, "volume_sale", module)
    exec(compile(code[1], "ARCHITECTURE.md", "exec"), vars(module))  # noqa: S102
    kind = module.VolumeSale()
    monkeypatch.setitem(KINDS, kind.name, kind)


@pytest.mark.usefixtures("volume_sale")
async def test_another_kind_is_one_module_and_one_registration() -> None:
    clock = StoreClock()
    store = ModelStore(clock.now_ms)
    catalog = Catalog(store, clock)
    desk = Desk(store, catalog, clock)
    now = clock.now_ms()
    offer = {"sku": "rice", "price": 100, "stock": 50, "breaks": [{"units": 10, "price": 80}]}
    document = {
        "id": "rice-week",
        "kind": "volume_sale",
        "currency": "CNY",
        "opens_at": rfc3339(now - 1000),
        "closes_at": rfc3339(now + 60_000),
        "offers": [offer],
    }
    await Administration(store, catalog, Forgetful()).put(parse_campaign(document))
    few = await desk.reserve("rice-week", "ann", None, "1", Request("rice", 9))
    many = await desk.reserve("rice-week", "bob", None, "1", Request("rice", 10))
    assert isinstance(few, Reserved)
    assert isinstance(many, Reserved)
    assert (due(few.reservation), due(many.reservation)) == ((Stage.FULL, 900), (Stage.FULL, 800))
    asked = await desk.request_payment(many.reservation.id, "bob", Stage.FULL)
    assert asked.facts.payments["full"].amount == 800  # type: ignore[union-attr]
    notice = Notice(NoticeType.PAYMENT_SUCCEEDED, "full", 800, "CNY", "ref")
    _, paid = await desk.take_notice(many.reservation.payment_id("full"), notice)
    assert paid is not None
    assert paid.state is State.CONFIRMED
    assert "VolumeSaleDocument" in describe()["components"]["schemas"]


def test_the_documents_of_all_kinds_are_explained() -> None:
    """docs/campaigns.md names every field that a merchandiser may write."""
    text = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text("utf-8")
    schemas = describe()["components"]["schemas"]
    names = {
        "Offer",
        "PresaleOffer",
        "TradeInOffer",
        "Item",
        "Gift",
        "SpendAndSave",
        "Entitlement",
        "Condition",
    }
    names |= {"GroupLimits", *(kind.document.__name__ for kind in KINDS.values())}
    for name in names:
        for field in schemas[name]["properties"]:
            assert re.search(rf"\b{field}\b", text), f"{name}.{field} is not explained"
