"""The notifier: tells the merchant of each notification until it is taken, or given up.

A notifier that dies between sending and noting it leaves the notification due, and it is sent a
second time under the same id, by which the recipient knows it.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple, Protocol

import structlog

from reservation.ids import ReservationId
from reservation.outcomes import Fault
from reservation.tasks import end
from reservation.tracing import MADE, NO_TRACER, SpanKind, Tracer, operation
from settlement.book import Book, BookUnavailable, NotificationDue
from settlement.metrics import NOTIFICATION_SECONDS, NOTIFICATIONS
from settlement.retry import patiently

SENDING_MAX = 32
"""At the same time, so that a few that hang hold up nothing."""
SEND_SECONDS_MAX = 10.0
PAUSE_SECONDS = 0.5
_ERROR_CHARS_MAX = 300
_log = structlog.get_logger(__name__)


class NotTaken(Fault):
    """The recipient did not take the notification. It is sent again."""


class Gone(Fault):
    """The recipient does not want this any more. It is not sent again."""


class Recipient(Protocol):
    """Whom the merchant has notifications sent to."""

    async def take(self, notification: NotificationDue) -> None:
        """Hand it over, idempotent by its id. Raises NotTaken, Gone."""
        ...

    async def close(self) -> None: ...


class Schedule(NamedTuple):
    """How far apart the attempts are: twice as far each time, within limits.

    The shortest distance is longer than an attempt takes, or two would be under way at once.
    """

    seconds_min: float
    seconds_max: float
    attempts_max: int


SCHEDULE = Schedule(seconds_min=20.0, seconds_max=6 * 3600.0, attempts_max=22)
"""Some three days in all."""


class Notifier:
    """Takes notifications that are due from the book to the recipient, for ever. Several may run."""

    def __init__(
        self,
        book: Book,
        recipient: Recipient,
        *,
        schedule: Schedule = SCHEDULE,
        seconds_max: float = SEND_SECONDS_MAX,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._tracer = tracer
        self._book = book
        self._recipient = recipient
        self._schedule = schedule
        self._seconds_max = seconds_max

    async def run(self) -> None:
        sending: set[asyncio.Task[None]] = set()
        try:
            while True:
                for notification in await self._due(SENDING_MAX - len(sending)):
                    sending.add(asyncio.create_task(self.send(notification)))
                if not sending:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                # All of them, or as many as there are by then: the slow ones do not hold up the others.
                done, sending = await asyncio.wait(sending, timeout=PAUSE_SECONDS)
                for task in done:
                    task.result()
        finally:
            await end(*sending)

    async def _due(self, limit: int) -> list[NotificationDue]:
        if limit == 0:
            return []
        seconds_min, seconds_max, _ = self._schedule
        return await patiently(
            lambda: self._book.notifications_to_send(limit, seconds_min, seconds_max), BookUnavailable
        )

    async def send(self, notification: NotificationDue) -> None:
        """Send it once, and note what became of it."""
        # As settlement.notifications names it.
        name, _, version = notification.notification_id.rpartition(".")
        reservation_id = ReservationId.parse(name)
        after = int(version) if version.isdecimal() else MADE
        with operation(self._tracer, "notify", SpanKind.CLIENT, reservation_id, after) as step:
            step.outcome = await self._send(notification)

    async def _send(self, notification: NotificationDue) -> str:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds_max):
                await self._recipient.take(notification)
        except Exception as error:
            # Any: what is wrong with one recipient, or with our telling it, must not stop settlement.
            return await self._not_sent(notification, error, time.monotonic() - started)
        took = time.monotonic() - started
        await patiently(
            lambda: self._book.note_notification_sent(notification.notification_id), BookUnavailable
        )
        return _count(notification.type, "sent", took)

    async def _not_sent(self, notification: NotificationDue, error: Exception, took: float) -> str:
        give_up = isinstance(error, Gone) or notification.attempts >= self._schedule.attempts_max
        reason = _one_line(error)
        await patiently(
            lambda: self._book.note_notification_not_sent(
                notification.notification_id, reason, give_up=give_up
            ),
            BookUnavailable,
        )
        (_log.error if give_up else _log.warning)(
            "notification_failed" if give_up else "notification_not_taken",
            notification_id=notification.notification_id,
            type=notification.type,
            attempts=notification.attempts,
            # What is neither ours nor the system's may quote what was sent; the row has all of it.
            error=reason if isinstance(error, (Fault, OSError)) else type(error).__name__,
        )
        return _count(notification.type, "failed" if give_up else "not_taken", took)


def _count(event: str, outcome: str, seconds: float) -> str:
    """The outcome, counted."""
    NOTIFICATIONS.labels(event, outcome).inc()
    NOTIFICATION_SECONDS.labels(outcome).observe(seconds)
    return outcome


def _one_line(error: Exception) -> str:
    """What is wrong, short and printable: it may quote what a recipient answered."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
    return "".join(char if char.isprintable() else " " for char in text[:_ERROR_CHARS_MAX])
