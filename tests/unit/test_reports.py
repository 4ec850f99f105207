"""How often a gateway makes a report, and what it can say."""

from __future__ import annotations

import json
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway import reports
from gateway.auth import Authenticator
from gateway.reports import FRESH_FACTOR, FRESH_SECONDS_MIN, Reports

GMV = 20 * 10**18
"""What twenty orders cost at most: more than 64 bits hold."""


class Made:
    def to_json(self) -> dict[str, Any]:
        return {"gmv": GMV, "title": "双十一"}


@pytest.mark.parametrize("takes", [0.1, 20.0])
async def test_a_report_is_made_again_when_making_it_takes_a_tenth_of_the_time(
    monkeypatch: pytest.MonkeyPatch, takes: float
) -> None:
    now, made = 0.0, 0

    async def report(campaign: str, earlier: str | None) -> Made:
        nonlocal now, made
        now, made = now + takes, made + 1
        return Made()

    monkeypatch.setattr(reports.time, "monotonic", lambda: now)
    answers = Reports(cast(Any, report), AsyncMock(Authenticator))
    request = make_mocked_request("GET", "/", match_info={"campaign": "sale"})
    await answers.get(request)
    now += max(FRESH_SECONDS_MIN, FRESH_FACTOR * takes) - 0.01
    await answers.get(request)
    assert made == 1
    now += 0.02
    await answers.get(request)
    assert made == 2


async def test_no_sum_of_money_is_too_large_to_be_told() -> None:
    answers = Reports(cast(Any, AsyncMock(return_value=Made())), AsyncMock(Authenticator))
    answer = await answers.get(make_mocked_request("GET", "/", match_info={"campaign": "sale"}))
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == Made().to_json()
