"""Processes, servers and what is between them: where requests and replies are late, or get lost.

A request is one step of the server that it reaches. It may never get there, its reply may never come back,
and who sent it may be dead by then: to whoever waits, all of this is the same fault. So between any two steps
of a process anything may happen, to it and to the others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Loop(Protocol):
    """What is needed of an event loop: Loop, or one that does not let anybody wait."""

    def time(self) -> float: ...

    def later(self, delay: float, callback: Callable[[], None]) -> None: ...

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle: ...

    def create_future(self) -> asyncio.Future[Any]: ...

    def create_task(self, coro: Any) -> asyncio.Task[Any]: ...

    def failed(self, error: BaseException) -> None:
        """A task that nobody waits for has failed."""
        ...


@dataclass
class Weather:
    """How bad it is. Chances are of one in all; 0 is never."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    slow: float = 0.0
    """Chance that a way takes up to `slow_seconds_max`, and not milliseconds."""
    slow_seconds_max: float = 1.0
    sluggish: str = ""
    """Processes whose names begin so are slow half of the time: by up to SLUGGISH_SECONDS_MAX a way."""


CALM = Weather()
SLUGGISH_SECONDS_MAX = 1.2


@dataclass
class Trace:
    """What happened, in order, a line each; and how often what did."""

    loop: Loop
    lines: list[str] = field(default_factory=list)

    def __call__(self, *words: object) -> None:
        self.lines.append(f"{self.loop.time():9.3f} {' '.join(map(str, words))}")


class Server:
    """Something that answers, while it is up."""

    def __init__(self, name: str, away: type[Exception]) -> None:
        self.name = name
        self.away = away
        """What its being away looks like to who asks."""
        self.is_up = True


class Process:
    """Some tasks that live and die together. What is dead asks for nothing and hears nothing."""

    def __init__(self, loop: Loop, name: str) -> None:
        self._loop = loop
        self.name = name
        self.is_dead = False
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that somebody waits for."""
        task: asyncio.Task[T] = self._loop.create_task(coroutine)
        self._tasks[task] = None
        task.add_done_callback(lambda _: self._tasks.pop(task))
        return task

    def run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with its process. If it fails, the whole life fails."""
        task = self.start(coroutine)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.failed(error)

    def kill(self) -> None:
        """At once: whatever its code would still like to do on its way out reaches nobody."""
        self.is_dead = True
        for task in list(self._tasks):
            task.cancel()


class Wire:
    """Carries requests and replies."""

    def __init__(self, loop: Loop, dice: random.Random, weather: Weather, trace: Trace) -> None:
        self.loop = loop
        self.dice = dice
        self.weather = weather
        self.trace = trace
        self.calls = 0

    def _way(self, process: Process) -> float:
        chance = self.dice.random()
        if self.weather.sluggish and chance < 0.5 and process.name.startswith(self.weather.sluggish):
            return chance * 2 * SLUGGISH_SECONDS_MAX
        if chance < self.weather.slow:
            return self.dice.random() * self.weather.slow_seconds_max
        return 0.0002 + chance * 0.004

    def call(self, process: Process, server: Server, step: Callable[[], T]) -> asyncio.Future[T]:
        """What `step` gives, run at the server; or the server's `away`, when that cannot be known."""
        if process.is_dead:
            raise asyncio.CancelledError
        self.calls += 1
        answer: asyncio.Future[T] = self.loop.create_future()
        self.loop.later(self._way(process), partial(self._arrive, process, server, step, answer))
        return answer

    def _arrive(
        self, process: Process, server: Server, step: Callable[[], T], answer: asyncio.Future[T]
    ) -> None:
        lost = self.weather.lost_request and self.dice.random() < self.weather.lost_request
        if lost or not server.is_up:
            if lost:
                self.trace(process.name, "lost a request to", server.name)
            error: BaseException | None = server.away(f"{server.name} is away")
            result = None
        else:
            try:
                result, error = step(), None
            except Exception as raised:
                result, error = None, raised
            if self.weather.lost_reply and self.dice.random() < self.weather.lost_reply:
                self.trace(process.name, "lost a reply of", server.name)
                error = server.away(f"{server.name} did not answer")
        self.loop.later(self._way(process), partial(_tell, answer, result, error))


def _tell(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():  # whoever asked is dead
        return
    if error is not None:
        answer.set_exception(error)
        answer.exception()  # has been seen, should who asked be dead by the time it is told
    else:
        answer.set_result(result)


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        result: T = stopped.value
        return result
    raise AssertionError("it waits for something")
