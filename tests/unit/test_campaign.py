"""Campaign documents: what is let in, and what follows from them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from reservation.campaign import Campaign, Phase, Status, ms_of
from reservation.catalog import Catalog, parse_campaign
from reservation.clock import StoreClock
from reservation.model import ModelStore
from reservation.validation import Invalid

SALE: dict[str, Any] = {
    "id": "sale",
    "kind": "flash_sale",
    "currency": "CNY",
    "warm_up_at": "2026-11-01T12:00:00Z",
    "opens_at": "2026-11-04T12:00:00Z",
    "closes_at": "2026-11-10T16:00:00+08:00",
    "offers": [{"sku": "phone-16", "price": 599900, "stock": 2000}],
}


@pytest.mark.parametrize(
    ("status", "at", "phase"),
    [
        (Status.RUNNING, "2026-11-01T11:59:59.999Z", Phase.SCHEDULED),
        (Status.RUNNING, "2026-11-01T12:00:00Z", Phase.WARM_UP),
        (Status.RUNNING, "2026-11-04T11:59:59.999Z", Phase.WARM_UP),
        (Status.RUNNING, "2026-11-04T12:00:00Z", Phase.OPEN),
        (Status.RUNNING, "2026-11-10T07:59:59.999Z", Phase.OPEN),
        (Status.RUNNING, "2026-11-10T08:00:00Z", Phase.CLOSED),
        (Status.PAUSED, "2026-11-05T00:00:00Z", Phase.PAUSED),
        (Status.PAUSED, "2026-11-10T08:00:00Z", Phase.CLOSED),
        (Status.CLOSED, "2026-11-05T00:00:00Z", Phase.CLOSED),
    ],
)
def test_the_phase_changes_to_the_millisecond(status: Status, at: str, phase: Phase) -> None:
    now = parse_campaign(
        SALE | {"opens_at": at, "closes_at": "2036-01-01T00:00:00Z", "warm_up_at": None}
    ).opens_at
    assert Campaign(parse_campaign(SALE), 1, status, 0).phase(ms_of(now)) is phase


def test_a_document_comes_back_as_it_was_in_utc() -> None:
    document = parse_campaign(SALE)
    assert document.to_json()["closes_at"] == "2026-11-10T08:00:00.000Z"
    assert parse_campaign(document.to_json()) == document


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": "Sale"}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"kind": "auction"}, "kind"),
        ({"kind": None}, "kind"),
        ({"currency": "yuan"}, "currency"),
        ({"opens_at": "2026-11-04T12:00:00"}, "opens_at"),  # whose noon?
        ({"opens_at": "tomorrow"}, "opens_at"),
        ({"opens_at": 1_800_000_000}, "opens_at"),
        ({"opens_at": "0001-01-01T00:00:00+14:00"}, "opens_at"),
        ({"closes_at": "2026-11-04T12:00:00Z"}, ""),
        ({"warm_up_at": "2026-11-05T12:00:00Z"}, ""),
        ({"title": "a\u0000b"}, "title"),
        ({"hold_seconds": 0}, "hold_seconds"),
        ({"hold_seconds": 900.0}, "hold_seconds"),
        ({"per_user": True}, "per_user"),
        ({"tiers": []}, "tiers"),
        ({"colour": "red"}, "colour"),
        ({"offers": []}, "offers"),
        ({"offers": [{"sku": "a", "price": 1, "stock": 1}] * 2}, ""),
        ({"offers": [{"sku": "a b", "price": 1, "stock": 1}]}, "offers[0].sku"),
        ({"offers": [{"sku": "a", "price": 0, "stock": 1}]}, "offers[0].price"),
        ({"offers": [{"sku": "a", "price": 1, "stock": -1}]}, "offers[0].stock"),
        ({"offers": [{"sku": "a", "price": "1", "stock": 1}]}, "offers[0].price"),
        ({"offers": [{"sku": "a", "price": 1, "stock": 1, "deposit": 1}]}, "offers[0].deposit"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_campaign(SALE | change)
    assert [error.path for error in refused.value.errors] == [path]


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        parse_campaign({"id": "!", "kind": "flash_sale", "currency": "x", "offers": [{}]})
    assert {error.path for error in refused.value.errors} == {
        "id", "currency", "opens_at", "closes_at", "offers[0].sku", "offers[0].price", "offers[0].stock"
    }  # fmt: skip


async def test_a_document_of_another_version_does_not_hide_the_others() -> None:
    clock = StoreClock()
    store = ModelStore(clock.now_ms)
    await store.configure("odd", 0, "running", b'{"kind": "auction"}', {}, 0)
    await store.configure("sale", 0, "running", orjson.dumps(SALE), {}, 0)
    catalog = Catalog(store, clock)
    await catalog.refresh()
    assert [campaign.id for campaign in catalog.all()] == ["sale"]
