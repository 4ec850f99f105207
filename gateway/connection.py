"""A client's connection: where a request takes the fast lane or the ordinary one."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from gateway.fast_lane import FastLane
from gateway.problems import Problem

BEHIND_BYTES_MAX = 64 * 1024
"""Of requests that are sent before the one on the fast lane is answered."""
_log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """One request at a time, in order, whichever lane it takes.

    What is not HTTP is answered as a problem, and is not for our log: anybody could fill it.
    """

    def __init__(self, server: web.Server, lane: FastLane, **options: Any) -> None:
        super().__init__(server, **options)
        self._lane = lane
        self._parser: Any = _Sieve(self._parser, self)
        self._under_way = False
        """Whether a request is on the fast lane."""
        self._ordinary = 0
        """Requests that are on the ordinary lane."""
        self._behind = b""
        self._answered: asyncio.Future[None] | None = None
        """For who waits until it is answered."""

    def data_received(self, data: bytes) -> None:
        if not self._under_way:
            super().data_received(data)
            return
        self._behind += data
        if len(self._behind) > BEHIND_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()

    def offer(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Let the fast lane have the request, if it may come next and the lane takes it."""
        if self._ordinary or self.writing_paused:  # the ordinary lane waits until its answers are taken
            return False
        self._under_way = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if not self._lane.take(message, payload, self):
            self._under_way = False
            return False
        return True

    def answer(self, response: bytes) -> None:
        if self.transport is not None:
            self.transport.write(response)
        if self._parser is not None:
            self._parser.message_consumed()
        self._go_on()

    def pass_on(self, requests: int) -> None:
        """So many go to the ordinary lane."""
        self._ordinary += requests

    def hand_back(self, message: RawRequestMessage, payload: StreamReader) -> None:
        self._ordinary += 1
        self._messages.append((message, payload))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._go_on()

    def _go_on(self) -> None:
        self._under_way = False
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
        if self._behind:
            data, self._behind = self._behind, b""
            if self.transport is not None:
                self.transport.resume_reading()
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        # What was handed back just now has not begun yet, and there is nobody any more to answer it to.
        idle = self._task_handler if self._current_request is None else None
        super().connection_lost(exc)
        if idle is not None:
            idle.cancel()

    async def finish_response(self, *given: Any, **named: Any) -> tuple[web.StreamResponse, bool]:
        try:
            return await super().finish_response(*given, **named)
        finally:
            self._ordinary -= 1

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  (aiohttp's)
        if self._under_way:
            self._answered = self._loop.create_future()
            await asyncio.wait([self._answered], timeout=timeout)
        await super().shutdown(timeout)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        response = Problem(
            "malformed_request", f"Not HTTP, or too much of it: {type(exc).__name__}."
        ).response()
        response.force_close()  # where the next request would begin, nobody can tell
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        if not isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
            # aiohttp would fill in from which address.
            _log.error("connection_error", what=args[0] if args else "", exc_info=error)


class _Sieve:
    """aiohttp's parser; what the fast lane takes does not get past it."""

    def __init__(self, parser: Any, connection: Connection) -> None:
        self._parser = parser
        self._connection = connection
        self.message_consumed = parser.message_consumed

    def feed_data(self, data: bytes) -> tuple[Any, bool, bytes]:
        try:
            messages, upgraded, tail = self._parser.feed_data(data)
        except HttpProcessingError:
            self._connection.pass_on(1)  # it is answered, too
            raise
        if len(messages) == 1 and not upgraded and self._connection.offer(*messages[0]):
            return (), upgraded, tail
        self._connection.pass_on(len(messages))
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)
