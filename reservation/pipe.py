"""Commands of many requests, one round trip.

While a batch is on its way, what arrives waits and becomes the next batch. So a lone request is
sent at once, and a thousand at the same moment share a few writes. A fault of the connection is
a fault of all that were in the batch; an error of one command is its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

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


class Pipe:
    """Sends commands in batches over one connection at a time."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def call(self, *command: Any) -> Any:
        """One command's reply. Raises StoreUnavailable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return await future

    async def run(self, script: Script, keys: tuple[str, ...], args: list[Any]) -> Any:
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
                await self._send_batch(batch)
        finally:
            self._sender = None

    async def _send_batch(self, batch: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]) -> None:
        replies: list[Any]
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for command, _ in batch:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            # The batch as a whole failed, so its connection did. Not every way to lose one is an OSError:
            # uvloop raises RuntimeError on a transport that was closed under it.
            replies = [StoreUnavailable(f"{type(error).__name__}: {error}")] * len(batch)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():  # its request was cancelled meanwhile
                continue
            if not isinstance(reply, Exception):
                future.set_result(reply)
            elif unable(reply):
                future.set_exception(StoreUnavailable(str(reply)))
            else:
                future.set_exception(reply)
