"""/metrics is there when the store is not, and in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import operators
from gateway.admission import Admission
from gateway.operators import Operators
from reservation.campaign import Campaign, Status
from reservation.catalog import parse_campaign
from reservation.clock import StoreClock
from reservation.outbox import Backlog
from reservation.outcomes import StoreUnavailable
from tests.stack import sale


class Hanging:
    """A store that never answers."""

    async def now_ms(self) -> int:
        return await asyncio.get_running_loop().create_future()


class Away:
    async def now_ms(self) -> int:
        raise StoreUnavailable("for a test")


class Campaigns:
    def __init__(self) -> None:
        over = {"opens_at": "2020-01-01T00:00:00Z", "closes_at": "2020-01-02T00:00:00Z"}
        documents = (parse_campaign(sale(id="now")), parse_campaign(sale(id="over", **over)))
        self._all = [Campaign(document, 1, Status.RUNNING, 0) for document in documents]

    def all(self) -> list[Campaign]:
        return self._all


async def backlog(now_ms: int) -> Backlog:
    return Backlog(0, 0)


@pytest.mark.parametrize("store", [Hanging(), Away()], ids=["hangs", "away"])
async def test_a_scrape_waits_for_no_store(store: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "SCRAPE_SECONDS_MAX", 0.1)
    asked = Operators(cast(Any, store), cast(Any, Campaigns()), StoreClock(), backlog, {}, Admission())
    started = time.monotonic()
    answer = await asked.metrics(cast(Any, None))
    assert time.monotonic() - started < 2
    assert isinstance(answer.body, bytes)
    found = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    assert [sample.value for sample in found["doorbuster_store_up"].samples] == [0]
    assert "doorbuster_outbox_events" not in found
    assert "doorbuster_request_duration_seconds" in found
    opens = found["doorbuster_campaign_opens_timestamp_seconds"].samples
    assert [sample.labels for sample in opens] == [{"campaign": "now"}], "and not what has long been over"
    begun = [one for one in found["doorbuster_reservations"].samples if one.labels["campaign"] == "now"]
    assert {one.value for one in begun} == {0}
    assert {"held", "sold_out"} <= {one.labels["outcome"] for one in begun}
