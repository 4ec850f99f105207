"""Commands of many requests, one round trip.

While a batch is on its way, what arrives waits and becomes the next batch. So a lone request is
sent at once, and a thousand at the same moment share a few writes. A fault of the connection is
a fault of all that were in the batch; an error of one command is its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

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

BATCH_COMMANDS_MAX = 256
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError, OSError)
# The server is up and cannot serve: still loading, its disk full, its script budget spent,
# its replicas gone. Anything else that it answers is a defect of ours.
_UNABLE = ("LOADING", "MISCONF", "BUSY", "OOM", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")


def unable(error: Exception) -> bool:
    """Whether the store, and not our command, is at fault."""
    if isinstance(error, ResponseError):
        return isinstance(error, _AWAY) or str(error).startswith(_UNABLE)
    return isinstance(error, (*_AWAY, RuntimeError))  # RuntimeError: see Pipe


class Waiting(Protocol):
    """Who waits for a command's reply."""

    def command(self) -> Sequence[Any]:
        """The command; asked for at the last moment, so it may grow while others are on their way."""
        ...

    def take(self, reply: Any) -> None:
        """The reply, or the exception that is one."""
        ...

    def cancel(self) -> None:
        """There will be no reply: the process is about to end."""
        ...


class _Call:
    """One command, and the future of its reply."""

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

    def cancel(self) -> None:
        self.reply.cancel()


class Pipe:
    """Sends commands in batches over one connection at a time."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: list[Waiting] = []
        self._sender: asyncio.Task[None] | None = None
        self._waiting_since = self._sent_since = 0.0
        """When the first of those that wait to be sent came, and of those on their way; 0 is none."""

    def waited(self) -> float:
        """For how many seconds who waits longest has waited."""
        since = self._sent_since or self._waiting_since
        return time.monotonic() - since if since else 0.0

    def put(self, waiting: Waiting) -> None:
        """Send its command soon. A fault of the store is StoreUnavailable to it."""
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append(waiting)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def call(self, *command: Any) -> Any:
        """One command's reply. Raises StoreUnavailable."""
        call = _Call(command)
        self.put(call)
        return await call.reply

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One script's reply. The store may have forgotten the script; then it is sent again."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.call("EVAL", script.source, len(keys), *keys, *args)

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:BATCH_COMMANDS_MAX]
                del self._waiting[:BATCH_COMMANDS_MAX]
                # Those that are left came a little later than that: they seem to wait longer than they do.
                self._sent_since = self._waiting_since
                if not self._waiting:
                    self._waiting_since = 0.0
                await self._send_batch(batch)
                self._sent_since = 0.0
        finally:
            self._sender, self._sent_since = None, 0.0

    async def _send_batch(self, batch: list[Waiting]) -> None:
        replies: list[Any]
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for waiting in batch:
                    pipeline.execute_command(*waiting.command())
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            # The batch as a whole failed, so its connection did. Not every way to lose one is an OSError:
            # uvloop raises RuntimeError on a transport that was closed under it.
            replies = [StoreUnavailable(f"{type(error).__name__}: {error}")] * len(batch)
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.cancel()
            raise
        for waiting, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception) and unable(reply):
                reply = StoreUnavailable(str(reply))
            waiting.take(reply)
