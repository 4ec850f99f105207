"""An event loop whose time is made up: nothing waits, and the same seed gives the same life.

There is no I/O and there are no threads. What is ready runs in the order in which it became so, as asyncio
promises; when nothing is ready the clock jumps to the next timer. Chance comes in where it does in life: in
how long each request and reply is on its way (wire.py). Between two awaits code is one step, and any two
steps of different tasks may come in either order.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import sys
import time
import uuid
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar
from unittest.mock import patch

import structlog

START_SECONDS = 1_800_000_000.0
T = TypeVar("T")


class Stuck(Exception):
    """Nothing is ready, nothing is to come, and what was waited for is not done."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as coroutines need that only wait for each other and for time.

    What it lacks (sockets, signals, threads) nobody here asks for.
    """

    def __init__(self) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle | Callable[[], None]]] = []
        self._now = 0.0
        self._count = 0
        self.errors: list[BaseException] = []
        """What tasks ended with that nobody waits for."""

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def later(self, delay: float, callback: Callable[[], None]) -> None:
        """As call_later, for what is never cancelled and needs no context."""
        self._count += 1
        heapq.heappush(self._timers, (self._now + delay, self._count, callback))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def failed(self, error: BaseException) -> None:
        """A task that nobody waits for has failed, and with it the whole life."""
        self.errors.append(error)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task that nobody asks is asked by its process (wire.py)."""

    def run_until_complete(self, future: Any) -> Any:
        """Run the one coroutine that everything belongs to. Raises Stuck."""
        task: asyncio.Task[Any] = asyncio.Task(future, loop=self)
        ready, timers = self._ready, self._timers
        outer = events._get_running_loop()
        events._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)  # an outer loop is not to end what is ours
        try:
            while not task.done() and not self.errors:
                if not ready:
                    if not timers:
                        raise Stuck
                    when, _, due = heapq.heappop(timers)
                    if not isinstance(due, asyncio.TimerHandle):
                        self._now = when
                        due()
                    elif not due.cancelled():
                        self._now = when
                        ready.append(due)
                for _ in range(len(ready)):
                    one = ready.popleft()
                    if not one.cancelled():
                        one._run()
            if self.errors:
                raise self.errors[0]
            return task.result()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(outer)


@contextmanager
def _virtual(loop: VirtualLoop, dice: random.Random) -> Iterator[None]:
    """This machine's clocks show the loop's time, and all chance is the seed's."""
    state = random.getstate()
    random.seed(dice.random())
    config = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with (
        patch.object(time, "monotonic", loop.time),
        patch.object(time, "time", lambda: START_SECONDS + loop.time()),
        patch.object(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4)),
    ):
        try:
            yield
        finally:
            random.setstate(state)
            structlog.configure(**config)


def run(life: Callable[[VirtualLoop], Coroutine[Any, Any, T]], dice: random.Random) -> T:
    """Run a life from its beginning to its end, in no time."""
    loop = VirtualLoop()  # type: ignore[abstract]
    with _virtual(loop, dice):
        result: T = loop.run_until_complete(life(loop))
        return result
