"""An outage does not fill the disk: a line a second says how many requests it stands for."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from gateway import endpoint as module
from gateway.admission import Admission
from gateway.endpoint import endpoint
from reservation.outcomes import StoreUnavailable
from reservation.sparing import Sparing
from settlement.book import BookUnavailable


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_of_refused_requests_one_line_a_second_is_logged_for_each_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "_sparing", Sparing(clock))
    faults: list[Exception] = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        raise faults.pop()

    handle = endpoint(Admission(), "/x", "GET", refuse)

    async def ask(fault: Exception, times: int) -> None:
        for _ in range(times):
            faults.append(fault)
            assert (await handle(make_mocked_request("GET", "/x"))).status == 503

    with capture_logs() as logs:
        await ask(StoreUnavailable("away"), 500)
        await ask(BookUnavailable("away"), 1)
        clock.now += 0.99
        await ask(StoreUnavailable("away"), 500)
        clock.now += 0.01
        await ask(StoreUnavailable("still away"), 1)
        clock.now += 60
        await ask(StoreUnavailable("again"), 2)
    assert {line["event"] for line in logs} == {"unavailable"}
    assert [(line["error"], line["times"]) for line in logs] == [
        ("StoreUnavailable: away", 1),
        ("BookUnavailable: away", 1),
        ("StoreUnavailable: still away", 1_000),
        ("StoreUnavailable: again", 1),
    ]
