"""Commands of many requests, one round trip, on one connection.

While a batch is on its way, what arrives waits and becomes the next batch. So a lone request is
sent at once, and a thousand at the same moment share a few writes. A fault of the connection is
a fault of all that were in the batch; an error of one command is its own.

redis-py connects, with all that goes with it: TLS, password, database. What is written and read then
is ours: it takes one callback of the event loop each way, however busy the loop is.

A server that cannot be connected to is known to be away for a moment: who asks for something then is
refused at once, while one attempt is made for all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from reservation.observer import NOBODY, Failure, Observer
from reservation.outcomes import StoreUnavailable
from reservation.replicas import NO_REPLICAS, Replicas
from reservation.scripts import Script

Ask = Callable[[Sequence[Sequence[Any]]], Awaitable[list[Any]]]
"""Sends commands on one connection and gives their replies. What a server answers in error is one too."""
Enter = Callable[[Ask], Awaitable[None]]
"""What is said on a new connection before anything else. What it raises, the connection is given up for."""

BATCH_COMMANDS_MAX = 256
REPLY_SECONDS_MAX = 5.0
LOOK_SECONDS = 0.005
"""How exactly the store's time is told from our own."""
REPLICAS_MS_MAX = 500
"""For how long a write waits for the replicas that must have it; as long again, for their disks."""
PROBE_MS = 50
"""For how long it is waited for them to be there again: meanwhile nobody is served."""
AWAY_SECONDS = 0.1, 0.25
"""For how long, at random, a server that could not be connected to is not tried again."""
CONNECT_PATIENCE_SECONDS = 1.0
"""Nobody waits longer for a connection. The attempt goes on, and who comes meanwhile is refused at once."""
_FADING = 0.9
_AWAY = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    AskError,  # MOVED too
    TryAgainError,
    ClusterDownError,
    OSError,
)
# The server is up and cannot serve: still loading, its disk full, its script budget spent, its replicas gone,
# its shard on its way to another. Anything else that it answers is a defect of ours.
_NOT_BEGUN = ("LOADING", "MISCONF", "BUSY ", "READONLY", "MASTERDOWN", "NOREPLICAS")
_NOT_HERE = ("CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN")
_UNABLE = (*_NOT_BEGUN, *_NOT_HERE, "OOM")


def unable(error: Exception) -> bool:
    """Whether the store, and not our command, is at fault."""
    if isinstance(error, ResponseError):
        return isinstance(error, _AWAY) or str(error).startswith(_UNABLE)
    return isinstance(error, (*_AWAY, RuntimeError))  # uvloop's, on a transport that was closed


class Waiting:
    """Who waits for a command's reply."""

    name = ""
    """Of the script, or the command itself in lower case: one of few, whatever is asked for."""
    hops = 0
    """How often it was sent somewhere else, or once more, without having been carried out."""
    writes = False
    """Whether replicas must have what it does, where any must."""
    home: Pipe | None = None
    """Where it was asked for first, when it was sent somewhere else for once."""

    @property
    def asked(self) -> int:
        """How many wait for it."""
        return 1

    def command(self) -> Sequence[Any]:
        """The command; asked for at the last moment, so it may grow while others are on their way."""
        raise NotImplementedError

    def take(self, reply: Any) -> None:
        """The reply, or the exception that is one."""
        raise NotImplementedError


class Elsewhere(Protocol):
    """Who knows the other servers, where there are others."""

    def redirect(self, pipe: Pipe, waiting: Waiting, error: Exception) -> bool:
        """Whether the error said that the command was not carried out here, and it was sent on."""
        ...

    def trouble(self) -> None:
        """A server could not be reached, or went."""
        ...


class _Call(Waiting):
    """One command, and the future of its reply."""

    def __init__(self, command: Sequence[Any], name: str) -> None:
        self._command = command
        self.name = name
        self.writes = command[0] in ("EVALSHA", "EVAL")
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

    def __init__(
        self,
        client: Redis,
        enter: Enter | None = None,
        elsewhere: Elsewhere | None = None,
        *,
        replicas: Replicas = NO_REPLICAS,
        observer: Observer = NOBODY,
    ) -> None:
        self.client = client
        self.observer = observer
        self.replicas = replicas
        """Who must have a write before it is answered."""
        self._enter = enter
        self._elsewhere = elsewhere
        self._waiting: list[Waiting] = []
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._stale = False
        """Whether something has changed since this connection was entered."""
        self._flush_is_due = False
        self._answered, self._seconds = 0.0, 0.0
        """Of late, and in how long. What is long past hardly counts."""
        self._waiting_since = 0.0
        """When the first of those that wait came."""
        self.unanswered = 0
        """New reservations that were asked for here."""
        self.away: str | None = None
        """Why there is no connection, as far as is known."""
        self._again_at = 0.0
        """No attempt to connect before."""
        self._lacking = ""
        """Why no write is sent on this connection, if so: replicas lack what was written before."""

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

    def try_again(self) -> None:
        """Connect, if there is no connection and it is time for an attempt."""
        if self._wire is None and self._connecting is None and time.monotonic() >= self._again_at:
            self._connecting = asyncio.create_task(self._connect())

    def renew(self) -> None:
        """Enter again, on a new connection, before more is sent. What is on its way comes back first."""
        if self._wire is not None or self._connecting is not None:
            self._stale = True
            if not self._flush_is_due and (self._wire is None or not self._wire.batch):
                self._flush_is_due = True
                asyncio.get_running_loop().call_soon(self._flush)

    async def call(self, *command: Any) -> Any:
        """One command's reply, as the store writes it. Raises StoreUnavailable."""
        return await self._named(command[0].lower(), command)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One script's reply. The store may have forgotten the script; then it is sent again."""
        try:
            return await self._named(script.name, ("EVALSHA", script.sha, len(keys), *keys, *args))
        except NoScriptError:
            return await self._named(script.name, ("EVAL", script.source, len(keys), *keys, *args))

    def _named(self, name: str, command: Sequence[Any]) -> asyncio.Future[Any]:
        call = _Call(command, name)
        self.put(call)
        return call.reply

    async def confirm(self, replicas: Replicas) -> None:
        """Return once they have all that there is now. Raises StoreUnavailable."""
        lacking = self._lacking or await self._missing(replicas, REPLICAS_MS_MAX)
        if lacking:
            raise StoreUnavailable(lacking, sent=True)

    async def _missing(self, replicas: Replicas, ms_max: int) -> str:
        """What they lack of all that there is now, after so long; nothing, where they have it."""
        # The waits are about what there was when their connection was last used: so that is now.
        asked = [self.call(*command) for command in (("PING",), *replicas.waits(ms_max))]
        _, *replies = await asyncio.gather(*asked, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, StoreUnavailable):
                raise reply
        return replicas.lacking(replies)

    def lacks(self, lacking: str) -> str:
        """Replicas lack something of what was written; what that is called from now on. Called by the wire.

        Whoever comes now would wait as long and know as little, and all others behind them. So writes are
        refused before they are sent, until the replicas are there again.
        """
        if not self._lacking:
            self._lacking = lacking
            self._probe_soon()
        return self._lacking

    def _probe_soon(self) -> None:
        wait = random.uniform(*AWAY_SECONDS)  # noqa: S311
        asyncio.get_running_loop().call_later(wait, self._begin_probe)

    def _begin_probe(self) -> None:
        if self._lacking:
            self._probing = asyncio.ensure_future(self._probe())

    async def _probe(self) -> None:
        wire, missing = self._wire, "unknown"
        with suppress(StoreUnavailable):
            missing = await self._missing(self.replicas, PROBE_MS)
        if self._lacking and wire is self._wire:
            if missing:
                self._probe_soon()
            else:
                self._lacking = ""

    def answered(self, batch: list[Waiting], replies: list[Any], seconds: float, sent_at: float) -> None:
        """A batch has come back. Called by the wire."""
        self.observer.answered(batch, time.monotonic() - sent_at)
        self._answered = self._answered * _FADING + sum(waiting.asked for waiting in batch)
        self._seconds = self._seconds * _FADING + seconds
        for waiting, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                if self._elsewhere is not None and self._elsewhere.redirect(self, waiting, reply):
                    continue
                fault = self._fault(reply)
                if isinstance(fault, StoreUnavailable):
                    self.observer.failed(Failure.REPLICAS if fault is reply else Failure.UNABLE, 1)
                reply = fault
            waiting.take(reply)
        if (self._waiting or self._stale) and not self._flush_is_due:
            self._flush()

    def lost(self, wire: _Wire, batch: list[Waiting], error: BaseException) -> None:
        """A connection went, and the replies with it. Called by the wire."""
        if wire is self._wire:
            self._part()
        if batch:
            self.observer.failed(Failure.LATE if wire.late else Failure.LOST, len(batch))
        for waiting in batch:
            waiting.take(StoreUnavailable(f"{type(error).__name__}: {error}", sent=True))
        if self._waiting and not self._flush_is_due:
            self._flush()

    def _fault(self, error: Exception) -> Exception:
        """What the server's error means to who asked."""
        if not unable(error):
            return error
        said = str(error)
        if said.startswith("READONLY"):
            self._part()  # a replica, or a master no more: the next connection may be to the right one
        # A script that runs out of memory may have begun to write.
        return StoreUnavailable(said, sent=not said.startswith((*_NOT_BEGUN, *_NOT_HERE)))

    def _part(self) -> None:
        """Have done with this connection."""
        wire, self._wire = self._wire, None
        self._lacking = ""
        if wire is not None:
            self._leaving = asyncio.ensure_future(self._leave(wire.connection))
        if self._elsewhere is not None:
            self._elsewhere.trouble()

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._stale and self._wire is not None and not self._wire.batch:
            self._part()
        if self._wire is None:
            self.try_again()
            if self.away is not None:
                self._refuse(self.away)
        elif not self._wire.batch and self._waiting:
            if self._lacking:
                self._refuse(self._lacking, only_writes=True)
            batch = self._waiting[:BATCH_COMMANDS_MAX]
            del self._waiting[:BATCH_COMMANDS_MAX]
            self._waiting_since = time.monotonic()
            if batch:
                self._wire.send(batch)

    async def _connect(self) -> None:
        patience = asyncio.get_running_loop().call_later(CONNECT_PATIENCE_SECONDS, self._lose_patience)
        self._stale = False
        try:
            wire = _Wire(self, await self._connection())
        except Exception as error:
            self._connecting = None
            self._again_at = time.monotonic() + random.uniform(*AWAY_SECONDS)  # noqa: S311
            self.away = f"{type(error).__name__}: {error}"
            self._refuse(self.away)
            if self._elsewhere is not None:
                self._elsewhere.trouble()
        except asyncio.CancelledError:
            self._refuse("the process is about to end")
            raise
        else:
            self._connecting, self.away, self._wire = None, None, wire
            self._flush()
        finally:
            patience.cancel()

    def _lose_patience(self) -> None:
        self.away = self.away or f"no connection within {CONNECT_PATIENCE_SECONDS:g} s"
        self._refuse(self.away)

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
        connection = await self.client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        if self._enter is None:
            return connection

        async def ask(commands: Sequence[Sequence[Any]]) -> list[Any]:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _reply(connection) for _ in commands]

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
            await self.client.connection_pool.release(connection)

    def _refuse(self, why: str, *, only_writes: bool = False) -> None:
        waiting = self._waiting
        self._waiting = [one for one in waiting if only_writes and not one.writes]
        refused = len(waiting) - len(self._waiting)
        if refused:
            self.observer.failed(Failure.REPLICAS if only_writes else Failure.AWAY, refused)
        for one in waiting:
            if one.writes or not only_writes:
                one.take(StoreUnavailable(why))


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
        self._expected = 0
        self.late = False
        """Whether we ended it, since there was no reply."""
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
        if any(waiting.writes for waiting in batch):
            commands += map(hiredis.pack_command, self._pipe.replicas.waits(REPLICAS_MS_MAX))
        self._expected = len(commands)
        self._transport.write(b"".join(commands))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._replies.append(reply)
        if self.batch and len(self._replies) >= self._expected:
            batch, self.batch = self.batch, []
            replies, self._replies = self._replies, []
            self._rest()
            if self._expected > len(batch):
                replies = self._replicated(batch, replies)
            self._pipe.answered(batch, replies, self.waited(), self._sent_at)

    def connection_lost(self, error: BaseException | None) -> None:
        batch, self.batch = self.batch, []
        self._rest()
        self._before.connection_lost(error)  # redis-py waits for this when it closes
        self._pipe.lost(self, batch, error or ConnectionError("the store closed the connection"))

    def waited(self) -> float:
        """For how many seconds the store has had the batch, going by when last it had not answered.

        Where this process has its hands full, replies lie there for a while before they are read. That is no
        fault of the store, and to refuse for it who comes would only fill the hands more.
        """
        return self._looked_at - self._sent_at

    def _replicated(self, batch: list[Waiting], replies: list[Any]) -> list[Any]:
        """The replies, but that nobody knows what becomes of a write that replicas lack."""
        own, waits = replies[: len(batch)], replies[len(batch) :]
        lacking = self._pipe.replicas.lacking(waits)
        if not lacking:
            return own
        unknown = StoreUnavailable(self._pipe.lacks(lacking), sent=True)
        return [
            unknown if waiting.writes and not isinstance(reply, Exception) else reply
            for waiting, reply in zip(batch, own, strict=True)
        ]

    def _look(self) -> None:
        # Timers come before what has arrived: so far there was no reply.
        self._looked_at = time.monotonic()
        if self.waited() < REPLY_SECONDS_MAX:
            self._next_look = self._loop.call_later(LOOK_SECONDS, self._look)
        else:
            self.late = True
            self._transport.abort()  # what comes later belongs to nobody

    def _rest(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _error(message: str) -> ResponseError:
    return NoScriptError(message) if message.startswith("NOSCRIPT") else ResponseError(message)
