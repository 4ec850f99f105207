"""A RabbitMQ that is made up: a quorum queue of events, and one of dead letters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from reservation.envelope import Envelope, events_in, singly
from settlement.dead_letters import DeadLetter, DeadLetters
from settlement.rabbit import (
    DEAD,
    DELIVERIES_MAX,
    EVENTS,
    PREFETCH_MESSAGES,
    BrokerUnavailable,
    decode,
    encode,
)
from settlement.source import BATCH_EVENTS_MAX, Batch
from tests.simulation.wire import Process, Server, Wire


@dataclass
class Message:
    body: bytes
    reason: str = ""
    returned: int = 0
    """How often it was handed out and came back."""


class BrokerServer(Server):
    """What it has confirmed it has, whatever happens. What is not acknowledged when its channel goes comes
    back, to the front; what comes back too often is a dead letter."""

    def __init__(self) -> None:
        super().__init__("broker", BrokerUnavailable)
        self.queues: dict[str, deque[Message]] = {EVENTS: deque(), DEAD: deque()}
        self.unacknowledged: dict[int, list[Message]] = {}
        """By channel, in the order in which they were handed out."""
        self._channels = 0
        self.told: list[Callable[[], None]] = []

    def publish(self, queue: str, body: bytes, reason: str = "") -> None:
        self.queues[queue].append(Message(body, reason))
        self._tell()

    def open_channel(self) -> int:
        self._channels += 1
        self.unacknowledged[self._channels] = []
        return self._channels

    def take(self, channel: int, limit: int) -> list[Message] | None:
        """The next messages for a channel; None when there is no such channel any more."""
        held = self.unacknowledged.get(channel)
        if held is None:
            return None
        queue = self.queues[EVENTS]
        found = [queue.popleft() for _ in range(min(limit, PREFETCH_MESSAGES - len(held), len(queue)))]
        held += found
        return found

    def acknowledge(self, channel: int, up_to: Message) -> None:
        held = self.unacknowledged.get(channel)
        if held is not None and any(one is up_to for one in held):
            while held.pop(0) is not up_to:
                pass

    def reject(self, channel: int, message: Message) -> None:
        held = self.unacknowledged.get(channel, [])
        held[:] = [one for one in held if one is not message]
        self.queues[DEAD].append(message)

    def drop(self, channel: int) -> None:
        """The channel's connection is gone."""
        for message in reversed(self.unacknowledged.pop(channel, [])):
            message.returned += 1
            if message.returned > DELIVERIES_MAX:
                self.queues[DEAD].append(message)
            else:
                self.queues[EVENTS].appendleft(message)
        self._tell()

    def go_down(self) -> None:
        self.is_up = False
        for channel in list(self.unacknowledged):
            self.drop(channel)

    def _tell(self) -> None:
        waiting, self.told = self.told, []
        for tell in waiting:
            tell()


class MemoryBroker:
    """settlement.relay.Publisher."""

    def __init__(self, wire: Wire, process: Process, server: BrokerServer) -> None:
        self._wire = wire
        self._process = process
        self._server = server

    async def open(self) -> None:
        await self._wire.call(self._process, self._server, lambda: None)

    async def close(self) -> None:
        """There is nothing to be told."""

    async def publish(self, queue: str, envelopes: Sequence[Envelope]) -> None:
        await asyncio.gather(*(self._publish(queue, body) for body in encode(envelopes)))

    async def _publish(self, queue: str, body: bytes) -> None:
        await self._wire.call(self._process, self._server, lambda: self._server.publish(queue, body))


class MemoryBrokerDeadLetters:
    """settlement.dead_letters.DeadLetters in the made-up broker."""

    def __init__(self, wire: Wire, process: Process, server: BrokerServer) -> None:
        self._wire = wire
        self._process = process
        self._server = server

    async def put(self, envelope: Envelope, reason: str) -> None:
        (body,) = encode([envelope])
        step = lambda: self._server.publish(DEAD, body, reason)  # noqa: E731
        await self._wire.call(self._process, self._server, step)

    async def look(self, limit: int) -> list[DeadLetter]:
        found = await self._wire.call(
            self._process, self._server, lambda: list(self._server.queues[DEAD])[:limit]
        )
        letters = [DeadLetter(one, message.reason) for message in found for one in _events(message)]
        return letters[:limit]

    async def count(self) -> int:
        return await self._wire.call(self._process, self._server, lambda: len(self._server.queues[DEAD]))

    async def replay(self, limit: int) -> int:
        replayed = 0
        for _ in range(limit):
            step = lambda: next(iter(self._server.queues[DEAD]), None)  # noqa: E731
            message = await self._wire.call(self._process, self._server, step)
            if message is None:
                break
            letters = _events(message)
            (body,) = encode(letters)
            await self._wire.call(self._process, self._server, lambda: self._replayed(message, body))  # noqa: B023
            replayed += len(letters)
        return replayed

    def _replayed(self, message: Message, body: bytes) -> None:
        self._server.publish(EVENTS, body)
        if any(one is message for one in self._server.queues[DEAD]):
            self._server.queues[DEAD].remove(message)


def _events(message: Message) -> list[Envelope]:
    return [one for envelope in decode(message.body) for one in singly(envelope)]


class MemoryBatch:
    """Messages that are not acknowledged yet."""

    def __init__(
        self, source: MemorySource, channel: int, last: Message, envelopes: Sequence[Envelope]
    ) -> None:
        self._source = source
        self._channel = channel
        self._last = last
        self.envelopes = envelopes

    async def done(self) -> None:
        await self._source.acknowledge(self._channel, self._last)


class MemorySource:
    """settlement.source.Source on the made-up broker."""

    def __init__(self, wire: Wire, process: Process, server: BrokerServer) -> None:
        self._wire = wire
        self._process = process
        self._server = server
        self._channel: int | None = None
        self.dead_letters: DeadLetters = MemoryBrokerDeadLetters(wire, process, server)

    async def open(self) -> None:
        self._channel = await self._wire.call(self._process, self._server, self._server.open_channel)

    async def close(self) -> None:
        self.lose_channel()

    def lose_channel(self) -> None:
        """The broker sees that the connection is gone."""
        if self._channel is not None:
            self._server.drop(self._channel)
            self._channel = None

    async def acknowledge(self, channel: int, last: Message) -> None:
        """An acknowledgement that is lost is lost with its connection."""
        step = lambda: self._server.acknowledge(channel, last)  # noqa: E731
        try:
            await self._wire.call(self._process, self._server, step)
        except BrokerUnavailable:
            self.lose_channel()

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            messages = await self._take()
            envelopes = [envelope for message in messages for envelope in decode(message.body)]
            if envelopes and self._channel is not None:
                yield MemoryBatch(self, self._channel, messages[-1], envelopes)

    async def _take(self) -> list[Message]:
        try:
            if self._channel is None:
                await self.open()
            channel = self._channel
            assert channel is not None
            found = await self._wire.call(self._process, self._server, lambda: self._some(channel))
        except BrokerUnavailable:
            self.lose_channel()
            await asyncio.sleep(1)
            return []
        if found is None:
            self._channel = None
            return []
        if not found:
            woken: asyncio.Future[None] = self._wire.loop.create_future()
            self._server.told.append(lambda: None if woken.done() else woken.set_result(None))
            await asyncio.wait([woken], timeout=5)
        return found

    def _some(self, channel: int) -> list[Message] | None:
        """As many as have arrived by the time that the worker looks."""
        found: list[Message] = []
        while sum(events_in(envelope) for one in found for envelope in decode(one.body)) < BATCH_EVENTS_MAX:
            some = self._server.take(channel, self._wire.dice.choice((1, 2, PREFETCH_MESSAGES)))
            if some is None:
                return None
            found += some
            break
        return found
