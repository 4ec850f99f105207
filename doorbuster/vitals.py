"""What every role tells Prometheus of itself: its event loop, its garbage collector, and how it asks store
and book."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from doorbuster.gathered import Gathered
from doorbuster.supervisor import STARTED_AGAIN
from reservation.observer import Command, Failure
from reservation.tasks import end
from settlement.book import Book, Connections

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for
LOOK_SECONDS = 0.25
"""From one look to the next. Four a second cost nothing, and no stall of note falls between two."""
UNTOLD_BATCHES_MAX = 64
"""Of the store's, between two looks."""
_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RESTARTS = Counter(
    "doorbuster_restarts_total", "Processes that were started in the place of one that had ended.", ["role"]
)
LOOP_LAG = Histogram(
    "doorbuster_event_loop_lag_seconds",
    "By how much what was due in the event loop came late.",
    ["role"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
GC_PAUSE = Histogram(
    "doorbuster_gc_pause_seconds",
    "Runs of the garbage collector, during which nothing else runs.",
    ["role"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
STORE_COMMAND = Histogram(
    "doorbuster_store_command_duration_seconds",
    "From writing a command or script to the store until the replies to all that was written with it.",
    ["role", "command"],
    buckets=_SECONDS,
)
STORE_BATCH = Histogram(
    "doorbuster_store_batch_commands",
    "Commands and scripts that were written to the store together.",
    ["role"],
    buckets=_COUNTS,
)
RESERVE_GROUP = Histogram(
    "doorbuster_reserve_group_reservations",
    "Reservations in one run of the script that makes them.",
    buckets=_COUNTS,
)
STORE_FAILURES = Counter(
    "doorbuster_store_failures_total",
    "Commands that the store gave no answer to, by reason.",
    ["role", "reason"],
)
BOOK_CONNECTIONS = Gauge(
    "doorbuster_book_connections",
    "Connections to the book that are used or idle, and statements that wait for one.",
    ["role", "state"],
    multiprocess_mode="livesum",
)


class StoreMetrics:
    """Observes how one role asks the store. Tells of it after some batches, and whenever it is to."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._batch = Gathered(STORE_BATCH.labels(role))
        self._group = Gathered(RESERVE_GROUP)
        self._took: dict[str, Gathered] = {}
        self._untold = 0
        for failure in Failure:
            STORE_FAILURES.labels(role, failure)  # 0, and not unknown, until the first

    def answered(self, batch: Sequence[Command], seconds: float) -> None:
        self._batch.note(len(batch))
        names = [command.name for command in batch]
        for name in set(names):
            self._of(name).note(seconds, names.count(name))
        for name, command in zip(names, batch, strict=True):
            if name == "reserve":
                self._group.note(command.asked)
        self._untold += 1
        if self._untold >= UNTOLD_BATCHES_MAX:
            self.tell()

    def took(self, name: str, seconds: float) -> None:
        self._of(name).note(seconds)

    def failed(self, failure: Failure, commands: int) -> None:
        STORE_FAILURES.labels(self._role, failure).inc(commands)

    def tell(self) -> None:
        self._untold = 0
        for gathered in (self._batch, self._group, *self._took.values()):
            gathered.tell()

    def _of(self, name: str) -> Gathered:
        found = self._took.get(name)
        if found is None:
            found = self._took[name] = Gathered(STORE_COMMAND.labels(self._role, name))
        return found


class Vitals:
    """Of one process."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.store = StoreMetrics(role)
        RESTARTS.labels(role).inc(STARTED_AGAIN in os.environ)
        self._lag = LOOP_LAG.labels(role)
        self._pause = Gathered(GC_PAUSE.labels(role))
        self._collecting_since = 0.0
        self._looks: list[Callable[[], None]] = []
        self._books: list[Book] = []

    def look(self, look: Callable[[], None]) -> None:
        """Call this at every look."""
        self._looks.append(look)

    def mind(self, book: Book) -> None:
        """Count its connections."""
        self._books.append(book)

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """A block during which they are."""
        gc.callbacks.append(self._collected)
        looking = asyncio.create_task(self._run())
        try:
            yield
        finally:
            await end(looking)
            gc.callbacks.remove(self._collected)
            self._tell()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._lag.observe(max(0.0, clock() - due))
            self._tell()

    def _tell(self) -> None:
        self._pause.tell()
        self.store.tell()
        if self._books:
            each = [book.connections() for book in self._books]
            for state, counts in zip(Connections._fields, zip(*each, strict=True), strict=True):
                BOOK_CONNECTIONS.labels(self.role, state).set(sum(counts))
        for look in self._looks:
            look()

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        # Not told at once: the collector may run wherever something is made, even while a metric is written.
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self._pause.note(time.perf_counter() - self._collecting_since)
