"""Whoever asks whether a gateway is ready is answered in time, whatever hangs."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.admission import Admission
from gateway.operators import CHECK_SECONDS_MAX, Operators
from gateway.problems import Problem
from reservation.outcomes import StoreUnavailable


class Part:
    """One that never answers, and asks its server to cancel before it lets itself be cancelled."""

    def __init__(self, cancelling_seconds: float) -> None:
        self._cancelling_seconds = cancelling_seconds
        self.ended = asyncio.Event()

    async def check(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(self._cancelling_seconds)
            raise
        finally:
            self.ended.set()


async def ready(**parts: Any) -> str:
    """What /readyz says, and nothing if all is well."""
    given: Any = Mock()
    operators = Operators(given, given, given, given, parts, Admission())
    try:
        await operators.readyz(make_mocked_request("GET", "/readyz"))
    except Problem as problem:
        return problem.detail
    return ""


async def well() -> None:
    pass


async def away() -> None:
    raise StoreUnavailable("it is away")


async def test_each_part_says_what_is_wrong_with_it() -> None:
    assert await ready(store=well, book=well) == ""
    assert await ready(store=away, book=well) == "store: StoreUnavailable: it is away"


@pytest.mark.parametrize("cancelling_seconds", [0, 30])
async def test_a_part_that_never_answers_is_given_up_in_time_and_ended(cancelling_seconds: float) -> None:
    book = Part(cancelling_seconds)
    started = time.monotonic()
    assert await ready(store=well, book=book.check) == "book: no answer within 2 s"
    assert time.monotonic() - started < CHECK_SECONDS_MAX + 1
    async with asyncio.timeout(5):
        await book.ended.wait()
