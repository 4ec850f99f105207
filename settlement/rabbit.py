"""RabbitMQ: a quorum queue of events, and one of dead letters.

A message carries up to MESSAGE_EVENTS_MAX events as a JSON array: the broker's confirm, like the
database's commit, is paid once a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import aio_pika
import orjson
import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustChannel, AbstractRobustConnection

from reservation.outbox import Envelope
from reservation.outcomes import Fault
from settlement.dead_letters import DeadLetter, DeadLetters
from settlement.metrics import DEAD_LETTERS
from settlement.source import Batch

EVENTS = "doorbuster.events"
DEAD = "doorbuster.dead"
DELIVERIES_MAX = 10
"""A message that so many workers took and none settled kills workers: it is set aside."""
MESSAGE_EVENTS_MAX = 100
PREFETCH_MESSAGES = 50
CONNECT_SECONDS_MAX = 10
CONFIRM_SECONDS_MAX = 30
_log = structlog.get_logger(__name__)

AWAY = (
    aio_pika.exceptions.AMQPError,
    aio_pika.exceptions.DeliveryError,
    OSError,
    asyncio.TimeoutError,
    RuntimeError,
)
"""What a broker that is away, or going, looks like from here."""


class BrokerUnavailable(Fault):
    """The broker is away. Try again later."""


class Broker:
    """One connection, and one channel on it, with the two queues declared."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractRobustConnection | None = None
        self.channel: AbstractRobustChannel
        self.events: aio_pika.abc.AbstractRobustQueue
        self.dead: aio_pika.abc.AbstractRobustQueue

    async def open(self) -> None:
        """Connect and declare. Raises BrokerUnavailable."""
        try:
            self._connection = await aio_pika.connect_robust(self._url, timeout=CONNECT_SECONDS_MAX)
            self.channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await self.channel.set_qos(prefetch_count=PREFETCH_MESSAGES)
            await self._declare()
        except AWAY as error:
            await self.close()
            raise BrokerUnavailable(str(error)) from error

    async def _declare(self) -> None:
        self.dead = await self.channel.declare_queue(
            DEAD, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
        )
        self.events = await self.channel.declare_queue(
            EVENTS,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERIES_MAX,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": DEAD,
                # A dead letter is only let go once the dead queue has it.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )

    async def close(self) -> None:
        """Leave. A broker that is away already has nothing to be told."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(*AWAY):
            # The channel first: closing the connection alone leaves its callbacks running behind us.
            if hasattr(self, "channel"):
                await self.channel.close()
            await connection.close()

    async def publish(
        self, queue: str, envelopes: Sequence[Envelope], headers: dict[str, str] | None = None
    ) -> None:
        """One message; the broker has it on a majority of its nodes when this returns."""
        message = aio_pika.Message(
            orjson.dumps(envelopes),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers=dict(headers or {}),
        )
        try:
            try:
                await self.channel.default_exchange.publish(
                    message, routing_key=queue, mandatory=True, timeout=CONFIRM_SECONDS_MAX
                )
            except aio_pika.exceptions.PublishError as error:
                # The broker has no such queue any more. What it confirms then, it has thrown away.
                await self._declare()
                raise BrokerUnavailable(f"{queue} was gone: {error}") from error
        except AWAY as error:  # also while declaring
            raise BrokerUnavailable(str(error)) from error


class RabbitDeadLetters:
    """Dead letters in their own queue."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def put(self, envelope: Envelope, reason: str) -> None:
        await self._broker.publish(DEAD, [envelope], {"reason": reason[:1000]})

    async def look(self, limit: int) -> list[DeadLetter]:
        messages = [message async for message in self._take(limit)]
        found = [letter for message in messages for letter in _letters(message)]
        for message in reversed(messages):  # back to where they were
            await message.nack(requeue=True)
        return found[:limit]

    async def replay(self, limit: int) -> int:
        replayed = 0
        async for message in self._take(limit):
            letters = _letters(message)
            await self._broker.publish(EVENTS, [letter.envelope for letter in letters])
            await message.ack()
            replayed += len(letters)
        return replayed

    async def _take(self, limit: int) -> AsyncIterator[AbstractIncomingMessage]:
        for _ in range(limit):
            message = await self._broker.dead.get(fail=False)
            if message is None:
                return
            yield message


def _letters(message: AbstractIncomingMessage) -> list[DeadLetter]:
    reason = str(message.headers.get("reason") or "delivered too often without being settled")
    try:
        return [DeadLetter(envelope, reason) for envelope in decode(message.body)]
    except ValueError:
        return [DeadLetter({"type": "unreadable", "id": "", "raw": repr(message.body)}, "not an event")]


def decode(body: bytes) -> list[Envelope]:
    """The events of a message. Raises ValueError."""
    found = orjson.loads(body)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("not an array of events")
    return found


class RabbitBatch:
    """Messages that are not acknowledged yet."""

    def __init__(self, messages: Sequence[AbstractIncomingMessage], envelopes: Sequence[Envelope]) -> None:
        self._messages = messages
        self.envelopes = envelopes

    async def done(self) -> None:
        """Acknowledge. If the channel is gone, they come again, which is harmless."""
        try:
            # Batches are settled in the order they came, so all up to the last one are done.
            await self._messages[-1].ack(multiple=True)
        except AWAY as error:
            _log.warning("not_acknowledged", error=str(error), messages=len(self._messages))


class RabbitSource:
    """Reads the events queue."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self.dead_letters: DeadLetters = RabbitDeadLetters(broker)

    async def open(self) -> None:
        await self._broker.open()
        await self._broker.events.consume(self._arrived.put)

    async def close(self) -> None:
        await self._broker.close()

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            messages = [await self._arrived.get()]
            while not self._arrived.empty() and len(messages) < PREFETCH_MESSAGES:
                messages.append(self._arrived.get_nowait())
            readable: list[AbstractIncomingMessage] = []
            envelopes: list[Any] = []
            for message in messages:
                try:
                    envelopes += decode(message.body)
                    readable.append(message)
                except ValueError:
                    await message.reject(requeue=False)
                    DEAD_LETTERS.inc()
            if readable:
                yield RabbitBatch(readable, envelopes)
