"""What is watched in this process, and by whom: one look for all who watch the same."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

from gateway.metrics import WATCHERS, WATCHERS_DROPPED
from gateway.problems import Problem
from gateway.watcher import Ending, Event, Watcher
from reservation.tasks import end

STREAMS_MAX = 10_000
TEND_SECONDS = 1.0
_AT_ONCE = 50
"""Watchers that are written to before requests have their turn again."""


class Topic:
    """One thing that is watched. It lives from its first watcher to its last."""

    stream = ""
    """Its name in metrics: the kind of thing that it is."""

    def __init__(self, fanout: Fanout, name: str, latest: Event) -> None:
        self.name = name
        self.latest = latest
        self.watchers: set[Watcher] = set()
        self._fanout = fanout

    def begin(self) -> None:
        """Somebody watches now."""

    def stop(self) -> None:
        """Nobody watches any more."""

    async def tell(self, latest: Event) -> None:
        """This is how it stands. Who does not take it now will be offered what is then the latest."""
        changed = latest.id != self.latest.id
        self.latest = latest
        if changed:
            await self._spread()

    async def _spread(self) -> None:
        for place, watcher in enumerate(list(self.watchers), 1):
            await watcher.offer(self.latest)
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def join(self, watcher: Watcher) -> None:
        self.watchers.add(watcher)
        WATCHERS.labels(self.stream).inc()
        self._fanout.joined(self, watcher)
        if len(self.watchers) == 1:
            self.begin()

    def leave(self, watcher: Watcher, ending: Ending) -> None:
        self.watchers.remove(watcher)
        WATCHERS.labels(self.stream).dec()
        if ending is not Ending.GONE:
            WATCHERS_DROPPED.labels(self.stream, ending).inc()
        self._fanout.left(self, watcher)
        if not self.watchers:
            self.stop()


T = TypeVar("T", bound=Topic)


class Fanout:
    """All topics and watchers of this process."""

    def __init__(self, watchers_max: int = STREAMS_MAX) -> None:
        self.watchers_max = watchers_max
        self._topics: dict[str, Topic] = {}
        self._watchers: set[Watcher] = set()
        self._tending: asyncio.Task[None] | None = None
        self._closing = False

    def admit(self) -> None:
        """Let another watcher in. Raises Problem."""
        if len(self._watchers) >= self.watchers_max:
            raise Problem("overloaded", "As many are watching as this process can tell of changes.")

    def topic(self, name: str, kind: type[T]) -> T | None:
        """The topic of this name and kind, if anybody watches it."""
        found = self._topics.get(name)
        return found if isinstance(found, kind) else None

    def joined(self, topic: Topic, watcher: Watcher) -> None:
        self._topics[topic.name] = topic
        self._watchers.add(watcher)
        if self._closing:
            watcher.end(Ending.RESTART)
        if self._tending is None:
            self._tending = asyncio.create_task(self._tend())

    def left(self, topic: Topic, watcher: Watcher) -> None:
        self._watchers.remove(watcher)
        if not topic.watchers:
            del self._topics[topic.name]

    async def end_all(self) -> None:
        """The process is about to end: every stream ends, also those that are still to come."""
        self._closing = True
        for place, watcher in enumerate(list(self._watchers), 1):
            watcher.end(Ending.RESTART)
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def close(self) -> None:
        if self._tending is not None:
            await end(self._tending)

    async def _tend(self) -> None:
        """Look after every watcher, while there are any."""
        try:
            while self._watchers:
                await asyncio.sleep(TEND_SECONDS)
                for place, watcher in enumerate(list(self._watchers), 1):
                    await watcher.tend(time.monotonic())
                    if place % _AT_ONCE == 0:
                        await asyncio.sleep(0)
        finally:
            self._tending = None
