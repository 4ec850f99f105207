"""Keeps the schedule: sends what is due, opens connections as arrivals need them, notes how each ended.

What happens here happens for every request, so it only notes times, in arrays made before the start;
result.py makes sense of them at the end.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import deque
from time import perf_counter_ns, process_time_ns
from typing import Any

from loadtests.openloop.connection import NOBODY, Connection
from loadtests.openloop.head import Head
from loadtests.openloop.notes import Notes, busy_ns
from loadtests.openloop.outcomes import Fault, fault_of
from loadtests.openloop.plan import Plan
from loadtests.openloop.reservations import RequestOf
from loadtests.openloop.result import Result, result_of
from loadtests.openloop.schedule import NS

TICK_S = 0.001
"""One timer for all arrivals, and uvloop has none that is finer. Between ticks every answer is an occasion to
look for what is due. So it is with few answers that arrivals are sent up to a tick late: half of one in the
mean, which is in the lag and in the corrected latency."""
TIMEOUTS_S = 0.1
OPENING_MAX = 64
"""Connections being opened at a time: less than the backlog of most servers."""
CONNECT_S = 5.0
NEVER_NS = 1 << 62


async def run(plan: Plan, request_of: RequestOf) -> Result:
    """Run the plan, in the running loop, which should do nothing else; best it is uvloop's.

    Every connection is closed afterwards, also when this is cancelled or `request_of` raises.
    """
    generator = _Generator(plan, request_of)
    # What is there now stays: looking at it again, in the middle of a run, would be a stall of our own.
    gc.collect()
    gc.freeze()
    try:
        notes = await generator.run()
    finally:
        gc.unfreeze()
        await generator.close()
    return result_of(plan, notes)


class _Generator:
    def __init__(self, plan: Plan, request_of: RequestOf) -> None:
        self._plan = plan
        self._request_of = request_of
        self._loop = asyncio.get_running_loop()
        self._total = len(plan.schedule.arrivals_ns)
        self._due_ns = plan.schedule.arrivals_ns
        """From the start."""
        self._start_ns = 0
        self._notes = notes = Notes.of(self._total)
        self._sent_ns, self._ended_ns, self._codes = notes.sent_ns, notes.ended_ns, notes.codes
        self._patience_ns = round(plan.patience_s * NS)
        self._answer_ns = round(plan.answer_s * NS)
        self._next = 0
        self._next_due_ns = NEVER_NS
        """By the clock, not from the start."""
        self._looking = False
        """Whether this round of the loop ends with a look for what is due."""
        self._second = (0, 0)
        """When the second in which we are began, and how busy the generator had been before it."""
        self._ended = 0
        self._line: deque[int] = deque()
        """Arrivals whose time has come, and that no connection is free for. The first one waits longest."""
        self._idle: deque[Connection] = deque()
        """The one that has been idle longest is used first. It may be gone by then.

        So all are used alike, as if each were another shopper's, and every process of the service gets its
        part. With the last one first a quick service would see a handful of connections.
        """
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._timeouts_at_ns = 0
        self._closing = False
        self._family: socket.AddressFamily
        self._address: tuple[Any, ...]
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        """No connection is left, after closing."""

    async def run(self) -> Notes:
        notes = self._notes
        found = await self._loop.getaddrinfo(self._plan.host, self._plan.port, type=socket.SOCK_STREAM)
        self._family, _, _, _, self._address = found[0]
        await self._open_first()
        notes.start_ns = self._start_ns = perf_counter_ns()
        self._next_due_ns = self._start_ns + self._due_ns[0] if self._total else NEVER_NS
        self._second = (self._start_ns, busy_ns())
        cpu_ns = process_time_ns()
        self._tick()
        await self._done
        notes.cpu_ns = process_time_ns() - cpu_ns
        notes.ended = self._ended
        return notes

    async def close(self) -> None:
        """Nothing is left open, whatever happened before."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._connections):
            connection.abort()
        if self._connections:
            await self._gone.wait()

    # --- Arrivals ---

    def _tick(self) -> None:
        now_ns = perf_counter_ns()
        try:
            if now_ns >= self._next_due_ns:
                self._send_due(now_ns)
            if self._line:
                self._lose_patience(now_ns)
            if now_ns >= self._timeouts_at_ns:
                self._timeouts_at_ns = now_ns + round(TIMEOUTS_S * NS)
                self._time_out(now_ns)
                self._note_busy(now_ns)
        except Exception as error:
            self._stop(error)
        if self._ended == self._total:
            self._stop(None)
        if not self._done.done():
            if self._plan.busy_poll:
                self._timer = self._loop.call_soon(self._tick)
            else:
                self._timer = self._loop.call_later(TICK_S, self._tick)

    def _look(self) -> None:
        self._looking = False
        now_ns = perf_counter_ns()
        if now_ns >= self._next_due_ns:
            try:
                self._send_due(now_ns)
            except Exception as error:
                self._stop(error)

    def _send_due(self, now_ns: int) -> None:
        """Each arrival that is due by now takes a free connection, or stands in line."""
        due_ns, total, idle, line = self._due_ns, self._total, self._idle, self._line
        taken_up_ns = self._notes.taken_up_ns
        run_ns = now_ns - self._start_ns
        n = self._next
        while n < total and due_ns[n] <= run_ns:
            # First: whatever sending leads to, this arrival has had its turn.
            self._next = n + 1
            connection = None
            while idle and not line:
                connection = idle.popleft()
                if connection.usable:
                    break
                connection = None
            if connection is not None:
                self._send(connection, n)
                taken_up_ns[n] = self._sent_ns[n]
            else:
                taken_up_ns[n] = now_ns
                if len(line) < self._plan.line_max:
                    line.append(n)
                else:
                    self._end(n, Fault.LINE_FULL)
            n += 1
        self._next_due_ns = self._start_ns + due_ns[n] if n < total else NEVER_NS
        if line:
            self._open_more()

    def _send(self, connection: Connection, n: int) -> None:
        request = self._request_of(n)
        self._sent_ns[n] = perf_counter_ns()
        connection.send(n, request)

    def _serve(self, connection: Connection) -> None:
        """This connection is free: who waits longest takes it."""
        line = self._line
        if line:
            self._lose_patience(perf_counter_ns())
        if line:
            try:
                self._send(connection, line.popleft())
            except Exception as error:
                self._stop(error)
            return
        self._idle.append(connection)

    def _lose_patience(self, now_ns: int) -> None:
        line = self._line
        out_of_patience_ns = now_ns - self._start_ns - self._patience_ns
        while line and self._due_ns[line[0]] < out_of_patience_ns:
            self._end(line.popleft(), Fault.PATIENCE)

    def _time_out(self, now_ns: int) -> None:
        sent_ns = self._sent_ns
        for connection in list(self._connections):
            n = connection.arrival
            if n != NOBODY and now_ns - sent_ns[n] > self._answer_ns:
                connection.time_out()

    def _note_busy(self, now_ns: int) -> None:
        began_ns, busy_before_ns = self._second
        if now_ns - began_ns >= NS:
            busy_now_ns = busy_ns()
            self._notes.busy_shares.append((busy_now_ns - busy_before_ns) / (now_ns - began_ns))
            self._second = (now_ns, busy_now_ns)

    def _end(self, n: int, code: int) -> None:
        self._codes[n] = code
        self._ended += 1

    def _stop(self, error: Exception | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)

    # --- What connections tell ---

    def made(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._notes.connections_opened += 1
        self._notes.connections_peak = max(self._notes.connections_peak, len(self._connections))

    def answered(self, connection: Connection, arrival: int, head: Head, now_ns: int) -> None:
        self._ended_ns[arrival] = now_ns
        self._codes[arrival] = status = head.status
        self._ended += 1
        if status == 503 and not head.says_when:
            self._notes.without_retry_after.append(arrival)
        if connection.usable:
            if self._line:
                self._serve(connection)
            else:
                self._idle.append(connection)
        # Once in each round of the loop, after all the answers that it found. So the lag tells how long
        # rounds take, and with that how long an answer may have lain here unread.
        if now_ns >= self._next_due_ns and not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def failed(self, connection: Connection, arrival: int, fault: Fault) -> None:
        self._ended_ns[arrival] = perf_counter_ns()
        self._end(arrival, fault)

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._closing:
            self._open_more()
        elif not self._connections:
            self._gone.set()

    # --- Connections ---

    async def _open_first(self) -> None:
        """Those that are to be there at the start. Where that fails, arrivals will find out as well."""
        while len(self._connections) < self._plan.connections_min:
            before = len(self._connections)
            wanted = min(self._plan.connections_min - before, OPENING_MAX)
            attempts = (self._connect() for _ in range(wanted))
            for opened in await asyncio.gather(*attempts, return_exceptions=True):
                if isinstance(opened, Connection):
                    self._serve(opened)
            if len(self._connections) == before:
                return

    def _open_more(self) -> None:
        """One for each that waits, within the limits."""
        wanted = min(
            len(self._line) - len(self._opening),
            OPENING_MAX - len(self._opening),
            self._plan.connections_max - len(self._connections) - len(self._opening),
        )
        for _ in range(wanted):
            task = self._loop.create_task(self._open_one())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    async def _open_one(self) -> None:
        try:
            connection = await self._connect()
        except OSError as error:
            self._lose_patience(perf_counter_ns())
            if self._line:
                # It was for them, though perhaps another one waits first by now.
                n = self._line.popleft()
                self._ended_ns[n] = perf_counter_ns()
                self._end(n, fault_of(error))
        else:
            if connection.usable:
                self._serve(connection)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self._stop(error)
            elif not self._closing:
                self._open_more()

    async def _connect(self) -> Connection:
        connected = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(CONNECT_S):
                await self._loop.sock_connect(connected, self._address)
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self, connected), sock=connected
                )
        except BaseException:
            connected.close()
            raise
        return connection
