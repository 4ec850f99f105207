"""Commands of many requests, one round trip, on one connection.

While a batch is on its way, what arrives waits and becomes the next batch. So a lone request is
sent at once, and a thousand at the same moment share a few writes. A fault of the connection is
a fault of all that were in the batch; an error of one command is its own.

redis-py connects, with all that goes with it: TLS, password, database. What is written and read then
is ours: it takes one callback of the event loop each way, however busy the loop is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)

from reservation.outcomes import StoreUnavailable
from reservation.scripts import Script

Ask = Callable[[Sequence[Sequence[Any]]], Awaitable[list[Any]]]
"""Sends commands on one connection and gives their replies. An error is raised."""
Enter = Callable[[Ask], Awaitable[None]]
"""What is said on a new connection before anything else. What it raises, the connection is given up for."""

BATCH_COMMANDS_MAX = 256
REPLY_SECONDS_MAX = 5.0
LOOK_SECONDS = 0.005
"""How exactly the store's time is told from our own."""
_FADING = 0.9
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError, OSError)
# The server is up and cannot serve: still loading, its disk full, its script budget spent,
# its replicas gone. Anything else that it answers is a defect of ours.
_UNABLE = ("LOADING", "MISCONF", "BUSY", "OOM", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")


def unable(error: Exception) -> bool:
    """Whether the store, and not our command, is at fault."""
    if isinstance(error, ResponseError):
        return isinstance(error, _AWAY) or str(error).startswith(_UNABLE)
    return isinstance(error, (*_AWAY, RuntimeError))  # uvloop's, on a transport that was closed


class Waiting(Protocol):
    """Who waits for a command's reply."""

    @property
    def asked(self) -> int:
        """How many wait for it."""
        ...

    def command(self) -> Sequence[Any]:
        """The command; asked for at the last moment, so it may grow while others are on their way."""
        ...

    def take(self, reply: Any) -> None:
        """The reply, or the exception that is one."""
        ...


class _Call:
    """One command, and the future of its reply."""

    asked = 1

    def __init__(self, command: Sequence[Any]) -> None:
        self._command = command
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def command(self) -> Sequence[Any]:
        return self._command

    def take(self, reply: Any) -> None:
        if self.reply.done():  # its request was cancelled meanwhile
            return
        if isinstance(reply, Exception):
            self.reply.set_exception(reply)
        else:
            self.reply.set_result(reply)


class Pipe:
    """Sends commands in batches, one at a time."""

    def __init__(self, client: Redis, enter: Enter | None = None) -> None:
        self._client = client
        self._enter = enter
        self._waiting: list[Waiting] = []
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._flush_is_due = False
        self._answered, self._seconds = 0.0, 0.0
        """Of late, and in how long. What is long past hardly counts."""
        self._waiting_since = 0.0
        """When the first of those that wait came."""

    def waited(self) -> float:
        """For how many seconds who waits longest has waited for the store."""
        if self._wire is not None and self._wire.batch:
            return self._wire.waited()
        return time.monotonic() - self._waiting_since if self._waiting else 0.0

    @property
    def seconds_each(self) -> float:
        """How long the store takes for one of many, going by the last batches."""
        return self._seconds / self._answered if self._answered else 0.0

    def put(self, waiting: Waiting) -> None:
        """Send its command soon. A fault of the store is StoreUnavailable to it."""
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append(waiting)
        if not self._flush_is_due and (self._wire is None or not self._wire.batch):
            # Whoever comes in this turn of the event loop goes along.
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def call(self, *command: Any) -> Any:
        """One command's reply, as the store writes it. Raises StoreUnavailable."""
        call = _Call(command)
        self.put(call)
        return await call.reply

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One script's reply. The store may have forgotten the script; then it is sent again."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.call("EVAL", script.source, len(keys), *keys, *args)

    def answered(self, batch: list[Waiting], replies: list[Any], seconds: float) -> None:
        """A batch has come back. Called by the wire."""
        self._answered = self._answered * _FADING + sum(waiting.asked for waiting in batch)
        self._seconds = self._seconds * _FADING + seconds
        for waiting, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception) and unable(reply):
                reply = StoreUnavailable(str(reply))
            waiting.take(reply)
        if self._waiting and not self._flush_is_due:
            self._flush()

    def lost(self, batch: list[Waiting], error: BaseException) -> None:
        """The connection went, and the replies with it. Called by the wire."""
        self._wire, wire = None, self._wire
        if wire is not None:
            self._leaving = asyncio.ensure_future(self._leave(wire.connection))
        for waiting in batch:
            waiting.take(StoreUnavailable(f"{type(error).__name__}: {error}"))
        if self._waiting and not self._flush_is_due:
            self._flush()

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._wire is None:
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
        elif not self._wire.batch and self._waiting:
            batch = self._waiting[:BATCH_COMMANDS_MAX]
            del self._waiting[:BATCH_COMMANDS_MAX]
            self._waiting_since = time.monotonic()
            self._wire.send(batch)

    async def _connect(self) -> None:
        try:
            connection = await self._connection()
        except Exception as error:
            self._connecting = None
            self._refuse(StoreUnavailable(f"{type(error).__name__}: {error}"))
        except asyncio.CancelledError:
            self._refuse(StoreUnavailable("the process is about to end"))
            raise
        else:
            self._connecting, self._wire = None, _Wire(self, connection)
            self._flush()

    async def _connection(self) -> Any:
        """One that is ours for good. The client's pool knows of it, and closes it with the others."""
        connection = await self._entered()
        # It may have ended since it was last heard of. Its end was told to redis-py, its transport reads no
        # more, and whatever we sent on it would wait for nothing.
        while connection._reader.at_eof():
            await self._leave(connection)
            connection = await self._entered()
        return connection

    async def _entered(self) -> Any:
        """One of the pool's, on which we have said what is said first."""
        connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        if self._enter is None:
            return connection

        async def ask(commands: Sequence[Sequence[Any]]) -> list[Any]:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await connection.read_response() for _ in commands]

        try:
            await self._enter(ask)
        except BaseException:
            await self._leave(connection)
            raise
        return connection

    async def _leave(self, connection: Any) -> None:
        with suppress(*_AWAY):
            await connection.disconnect()
        with suppress(KeyError):  # the whole pool was closed meanwhile
            await self._client.connection_pool.release(connection)

    def _refuse(self, error: StoreUnavailable) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.take(error)


class _Wire(asyncio.Protocol):
    """A connection that redis-py has made, and the batch that is on its way over it."""

    def __init__(self, pipe: Pipe, connection: Any) -> None:
        self._pipe = pipe
        self.connection = connection
        self._reader = hiredis.Reader(replyError=_error)
        self._replies: list[Any] = []
        self._loop = asyncio.get_running_loop()
        self._next_look: asyncio.TimerHandle | None = None
        self._sent_at = self._looked_at = 0.0
        self.batch: list[Waiting] = []
        # There is no public way to what redis-py reads and writes with.
        self._transport: asyncio.Transport = connection._writer.transport
        self._before = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def send(self, batch: list[Waiting]) -> None:
        self.batch = batch
        self._sent_at = self._looked_at = time.monotonic()
        self._next_look = self._loop.call_later(LOOK_SECONDS, self._look)
        commands = [hiredis.pack_command(tuple(waiting.command())) for waiting in batch]
        self._transport.write(b"".join(commands))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._replies.append(reply)
        if self.batch and len(self._replies) >= len(self.batch):
            batch, self.batch = self.batch, []
            replies, self._replies = self._replies, []
            self._rest()
            self._pipe.answered(batch, replies, self.waited())

    def connection_lost(self, error: BaseException | None) -> None:
        batch, self.batch = self.batch, []
        self._rest()
        self._before.connection_lost(error)  # redis-py waits for this when it closes
        self._pipe.lost(batch, error or ConnectionError("the store closed the connection"))

    def waited(self) -> float:
        """For how many seconds the store has had the batch, going by when last it had not answered.

        Where this process has its hands full, replies lie there for a while before they are read. That is no
        fault of the store, and to refuse for it who comes would only fill the hands more.
        """
        return self._looked_at - self._sent_at

    def _look(self) -> None:
        # Timers come before what has arrived: so far there was no reply.
        self._looked_at = time.monotonic()
        if self.waited() < REPLY_SECONDS_MAX:
            self._next_look = self._loop.call_later(LOOK_SECONDS, self._look)
        else:
            self._transport.abort()  # what comes later belongs to nobody

    def _rest(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None


def _error(message: str) -> ResponseError:
    return NoScriptError(message) if message.startswith("NOSCRIPT") else ResponseError(message)
