"""What tests/simulation has made up, on an ordinary event loop: every request is answered at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tests.simulation.wire import CALM, Process, Trace, Wire


class InstantLoop:
    """The running loop, on which nothing takes time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self._loop.time()

    def later(self, delay: float, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        return self._loop.call_later(delay, callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    def create_task(self, coro: Any) -> asyncio.Task[Any]:
        return self._loop.create_task(coro)

    def failed(self, error: BaseException) -> None:
        raise error


def instant_wire() -> Wire:
    loop = InstantLoop()
    return Wire(loop, random.Random(1), CALM, Trace(loop))


def process(wire: Wire, name: str = "test") -> Process:
    return Process(wire.loop, name)
