"""RabbitMQ: a quorum queue of events, and one of dead letters.

A message carries envelopes as a JSON array, as many as go into MESSAGE_BYTES_MAX: the broker's confirm,
like the database's commit, is paid once a batch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress

import aio_pika
import orjson
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from yarl import URL

from reservation.envelope import Envelope, events_in, halves, singly
from reservation.outcomes import Fault
from settlement.dead_letters import DeadLetter, DeadLetters
from settlement.metrics import BROKER_CONNECTIONS, SET_ASIDE
from settlement.retry import patiently
from settlement.source import BATCH_EVENTS_MAX, Batch

EVENTS = "doorbuster.events"
DEAD = "doorbuster.dead"
DELIVERIES_MAX = 10
"""A message that so many workers took and none settled kills workers: it is set aside."""
MESSAGE_BYTES_MAX = 64 * 1024
"""Some 1,500 reservations that were made together, or 100 events of another sort."""
PREFETCH_MESSAGES = 50
CONNECT_SECONDS_MAX = 10.0
"""To one node, with all that has to be said before events can flow."""
CLOSE_SECONDS_MAX = 2.0
HEARTBEAT_SECONDS = 10
"""Unless the URL says another (`?heartbeat=`): a node that says nothing for twice as long is given up."""
CONFIRM_SECONDS_MAX = 30
COUNT_SECONDS_MAX = 2.0
"""For the broker to say how many messages wait."""
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
    """One connection to one of the broker's nodes, and one channel on it, with the two queues declared.

    A connection that went is not mended: whoever needs one opens another, to a node that answers. So what was
    not acknowledged on the old one is delivered again, and nothing that belongs to it is taken for new.
    """

    def __init__(self, urls: str) -> None:
        """`urls` are separated by commas."""
        self.urls: Sequence[str] = urls.split(",")
        self._connection: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self.channel: AbstractChannel
        self.events: AbstractQueue
        self.dead: AbstractQueue

    async def open(self) -> None:
        """Connect to a node, whichever answers first, and declare. Raises BrokerUnavailable."""
        async with self._opening:
            if self._connection is not None and not self._connection.is_closed and not self.channel.is_closed:
                return
            await self.close()
            reasons = []
            for url in random.sample(self.urls, len(self.urls)):
                try:
                    await self._connect(url)
                    BROKER_CONNECTIONS.labels("opened").inc()
                    return
                except AWAY as error:
                    BROKER_CONNECTIONS.labels("failed").inc()
                    reasons.append(f"{type(error).__name__}: {error}")
                    await self.close()
        raise BrokerUnavailable("; ".join(reasons))

    async def _connect(self, url: str) -> None:
        found = URL(url)
        if "heartbeat" not in found.query:
            found = found.update_query(heartbeat=HEARTBEAT_SECONDS)
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            self._connection = await aio_pika.connect(found)
            self.channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await self.channel.set_qos(prefetch_count=PREFETCH_MESSAGES)
            await self._declare()

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

    async def waiting(self, queue: str) -> int:
        """How many messages wait in it, as last counted by the broker. Raises BrokerUnavailable."""
        connection = self._connection
        if connection is None or connection.is_closed:
            raise BrokerUnavailable("not connected")  # who has more to say to it connects
        try:
            async with asyncio.timeout(COUNT_SECONDS_MAX):
                # On a channel of its own: one on which a queue was asked for in vain is closed.
                async with connection.channel(publisher_confirms=False) as channel:
                    found = await channel.declare_queue(queue, passive=True)
        except AWAY as error:
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error
        return found.declaration_result.message_count or 0

    async def close(self) -> None:
        """Leave. A broker that is away already has nothing to be told."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(*AWAY):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                # The channel first: closing the connection alone leaves its callbacks running behind us.
                if hasattr(self, "channel"):
                    await self.channel.close()
                await connection.close()

    async def publish(
        self, queue: str, envelopes: Sequence[Envelope], headers: dict[str, str] | None = None
    ) -> None:
        """As many messages as it takes; the broker has them on a majority of its nodes when this returns.

        Raises BrokerUnavailable. Then some of them may have arrived.
        """
        await self.open()
        await asyncio.gather(*(self._publish(queue, body, headers) for body in encode(envelopes)))

    async def _publish(self, queue: str, body: bytes, headers: dict[str, str] | None) -> None:
        channel = self.channel
        message = aio_pika.Message(
            body,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers=dict(headers or {}),
        )
        try:
            try:
                await channel.default_exchange.publish(
                    message, routing_key=queue, mandatory=True, timeout=CONFIRM_SECONDS_MAX
                )
            except aio_pika.exceptions.PublishError as error:
                # The broker has no such queue any more. What it confirms then, it has thrown away.
                await self._declare()
                raise BrokerUnavailable(f"{queue} was gone: {error}") from error
        except (aio_pika.exceptions.DeliveryError, TimeoutError) as error:
            # The node may be cut off from the others. Or the channel was opened while the queue had no
            # leader: RabbitMQ then turns away what is published on it, for ever.
            if channel is self.channel:  # and not one that was opened meanwhile
                await self.close()
            raise BrokerUnavailable(f"{queue} did not take it: {error!r}") from error
        except AWAY as error:  # also while declaring
            raise BrokerUnavailable(str(error)) from error


def encode(envelopes: Sequence[Envelope]) -> Iterator[bytes]:
    """Messages with all of these in their order; those made together are parted where they are too many."""
    parts: list[bytes] = []
    size = 0
    for part in (part for envelope in envelopes for part in _parts(envelope)):
        if parts and size + len(part) > MESSAGE_BYTES_MAX:
            yield b"[%b]" % b",".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part) + 1
    if parts:
        yield b"[%b]" % b",".join(parts)


def _parts(envelope: Envelope) -> Iterator[bytes]:
    packed = orjson.dumps(envelope)
    smaller = halves([envelope]) if len(packed) > MESSAGE_BYTES_MAX else None
    if smaller is None:
        yield packed
    else:
        for (half,) in smaller:
            yield from _parts(half)


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

    async def count(self) -> int:
        return await self._broker.waiting(DEAD)

    async def replay(self, limit: int) -> int:
        replayed = 0
        async for message in self._take(limit):
            letters = _letters(message)
            await self._broker.publish(EVENTS, [letter.envelope for letter in letters])
            await message.ack()
            replayed += len(letters)
        return replayed

    async def _take(self, limit: int) -> AsyncIterator[AbstractIncomingMessage]:
        await self._broker.open()
        for _ in range(limit):
            try:
                message = await self._broker.dead.get(fail=False)
            except AWAY as error:
                raise BrokerUnavailable(str(error)) from error
            if message is None:
                return
            yield message


def _letters(message: AbstractIncomingMessage) -> list[DeadLetter]:
    reason = str(message.headers.get("reason") or "delivered too often without being settled")
    try:
        return [DeadLetter(one, reason) for envelope in decode(message.body) for one in singly(envelope)]
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


class _Arrived(asyncio.Queue[AbstractIncomingMessage | None]):
    """Messages of one connection, in their order; None where no more will come on it."""


class RabbitSource:
    """Reads the events queue."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._arrived = _Arrived()
        self.dead_letters: DeadLetters = RabbitDeadLetters(broker)

    async def open(self) -> None:
        """Begin to consume, on the connection that the broker has now. Raises BrokerUnavailable."""
        # What came on the connection before comes again, and cannot be acknowledged any more.
        self._arrived = arrived = _Arrived()

        def over(*_: object) -> None:
            arrived.put_nowait(None)

        await self._broker.open()
        try:
            self._broker.channel.close_callbacks.add(over)
            underlay = await self._broker.channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(over)
            await self._broker.events.consume(arrived.put)
        except AWAY as error:
            await self._broker.close()
            raise BrokerUnavailable(str(error)) from error

    async def close(self) -> None:
        await self._broker.close()

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            arrived = self._arrived
            message = await arrived.get()
            if message is None:
                await patiently(self.open, BrokerUnavailable)
                continue
            readable: list[AbstractIncomingMessage] = []
            envelopes: list[Envelope] = []
            events = 0
            while True:
                try:
                    found = decode(message.body)
                except ValueError:
                    with suppress(*AWAY):  # then it comes again
                        await message.reject(requeue=False)
                        SET_ASIDE.inc()
                else:
                    readable.append(message)
                    envelopes += found
                    events += sum(map(events_in, found))
                if arrived.empty() or events >= BATCH_EVENTS_MAX:
                    break
                following = arrived.get_nowait()
                if following is None:
                    arrived.put_nowait(None)  # for the next round: these are settled first
                    break
                message = following
            if readable:
                yield RabbitBatch(readable, envelopes)
