"""One connection, with one request in flight at most."""

from __future__ import annotations

import asyncio
import socket
from time import perf_counter_ns
from typing import Protocol, cast

from loadtests.openloop.head import Head, Malformed, head_of
from loadtests.openloop.outcomes import Fault, fault_of

NOBODY = -1
"""No arrival: the connection is idle."""


class Owner(Protocol):
    """Who asks."""

    def made(self, connection: Connection) -> None: ...

    def answered(self, connection: Connection, arrival: int, head: Head, now_ns: int) -> None: ...

    def failed(self, connection: Connection, arrival: int, fault: Fault) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Sends requests as they are, and finds the end of each answer."""

    __slots__ = ("_body_bytes_left", "_head", "_owner", "_part", "_send", "_transport", "arrival", "usable")

    def __init__(self, owner: Owner, connected: socket.socket) -> None:
        self.arrival = NOBODY
        """Whose answer is awaited."""
        self.usable = False
        self._owner = owner
        # Straight to the socket, where it goes out at once, so that the moment of sending is known: uvloop's
        # transport waits for the end of the round. Both cost the same. A request always fits, for everything
        # before it has been read and answered.
        self._send = connected.send
        self._transport: asyncio.Transport | None = None
        self._part = b""
        self._head: Head | None = None
        self._body_bytes_left = 0

    def send(self, arrival: int, request: bytes) -> None:
        """What goes wrong here is told to the owner, like what goes wrong later."""
        self.arrival = arrival
        try:
            sent = self._send(request)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(fault_of(error))
            return
        if sent < len(request) and self._transport is not None:
            self._transport.write(request[sent:])

    def abort(self) -> None:
        """Without a goodbye, and without another word to the owner about the arrival."""
        self.arrival = NOBODY
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def time_out(self) -> None:
        self._fail(Fault.TIMED_OUT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True
        self._owner.made(self)

    def data_received(self, data: bytes) -> None:
        now_ns = perf_counter_ns()
        arrival = self.arrival
        if arrival == NOBODY:
            self.abort()  # nobody asked
            return
        head = self._head
        if head is None:
            if self._part:
                data = self._part + data
            try:
                head = head_of(data)
            except Malformed:
                self._fail(Fault.MALFORMED)
                return
            if head is None:
                self._part = data
                return
            left = head.length - len(data)
        else:
            left = self._body_bytes_left - len(data)
        if left > 0:
            self._part, self._head, self._body_bytes_left = b"", head, left
            return
        if left < 0:
            self._fail(Fault.MALFORMED)
            return
        self._part = b""
        self._head = None
        self.arrival = NOBODY
        if head.closes:
            self.abort()
        self._owner.answered(self, arrival, head, now_ns)

    def eof_received(self) -> None:
        # Its socket may be closed before connection_lost() is called.
        self._fail(Fault.CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(fault_of(exc))
        self._transport = None
        self._owner.lost(self)

    def _fail(self, fault: Fault) -> None:
        arrival = self.arrival
        self.abort()
        if arrival != NOBODY:
            self._owner.failed(self, arrival, fault)
