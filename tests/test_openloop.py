"""The open-loop load generator: what it promises, against a server that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import json
import math
import random
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from loadtests.openloop.generator import run
from loadtests.openloop.head import HEAD_BYTES_MAX, Head, Malformed, head_of
from loadtests.openloop.histogram import NS_IN_MS, PERCENTILES, Histogram
from loadtests.openloop.outcomes import Fault, Outcome, outcome_of
from loadtests.openloop.plan import Plan
from loadtests.openloop.reservations import reservations
from loadtests.openloop.result import BUSY_SHARE_MAX, LAG_P99_MS_MAX, Miscounted, Result
from loadtests.openloop.schedule import NS, Schedule, constant, poisson
from loadtests.openloop.summary import summary
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
PATH = "/v1/campaigns/bench/reservations"
SHOPPERS = [("ann", "token-a"), ("bob", "token-b"), ("eve", "token-c")]
RUN_SECONDS_MAX = 60


# --- A server that does as it is told -----------------------------------------------------------


def answer(status: int = 201, *headers: str, body: bytes = b'{"id":"r"}') -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Shop:
    """Hears requests, and leaves it to `behave` to answer the n-th."""

    def __init__(self, behave: Callable[[Shop, asyncio.StreamWriter, int], Awaitable[None]]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.connected_now = 0
        self.port = 0
        self.never = asyncio.Event()
        self._behave = behave
        self._serving: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        self.connections += 1
        self.connected_now += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self._behave(self, writer, len(self.requests) - 1)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.connected_now -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._serving.discard(asyncio.current_task())

    async def all_gone(self) -> None:
        """Whoever never gets an answer is let go by the client, or at the end by us."""
        self.never.set()
        while self._serving:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def shop(behave: Callable[[Shop, asyncio.StreamWriter, int], Awaitable[None]]) -> AsyncIterator[Shop]:
    opened = Shop(behave)
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0, backlog=1024)
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
        await opened.all_gone()
    finally:
        server.close()
        await server.wait_closed()


async def admit(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
    writer.write(answer())


async def keep_silent(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
    await shop.never.wait()


def reset(writer: asyncio.StreamWriter) -> None:
    # Closing without lingering sends a reset.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def load(port: int, schedule: Schedule, **settings: Any) -> Result:
    plan = Plan(host="127.0.0.1", port=port, schedule=schedule, **settings)
    url = urlsplit(f"http://127.0.0.1:{port}{PATH}")
    async with asyncio.timeout(RUN_SECONDS_MAX):
        result = await run(plan, reservations(url, SHOPPERS, run="run", sku="phone"))
    assert sum(result.outcomes.values()) == result.scheduled
    assert sum(result.statuses.values()) + sum(result.faults.values()) == result.scheduled
    return result


def all_of(outcome: Outcome, result: Result) -> bool:
    return result.outcomes[outcome] == result.scheduled > 0


# --- Latency ------------------------------------------------------------------------------------


async def test_a_stall_is_in_the_latency_of_every_arrival_whose_time_came_during_it() -> None:
    stall_s, coming_s = 1.0, 0.2

    async def stall_once(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        if n == 0:
            await asyncio.sleep(stall_s)
        await admit(shop, writer, n)

    async with shop(stall_once) as stalling:
        result = await load(
            stalling.port, constant(500, coming_s), connections_min=1, connections_max=1, patience_s=30
        )
    assert all_of(Outcome.ADMITTED, result)
    latency = result.latency[Outcome.ADMITTED]
    least_ms = (stall_s - coming_s) * 1000 * 0.95
    assert latency.corrected.percentile_ms(0.1) >= least_ms
    # Only the one request that was under way took long after it was sent.
    assert latency.service.max_ms >= least_ms
    assert latency.service.percentile_ms(90) < least_ms


async def test_an_answer_is_never_quicker_from_the_schedule_than_from_sending() -> None:
    async with shop(admit) as admitting:
        result = await load(admitting.port, poisson(400, 0.5, seed=3))
    for percent in PERCENTILES:
        assert result.answered.corrected.percentile_ms(percent) >= result.answered.service.percentile_ms(
            percent
        )
    assert result.answered.corrected.count == result.answered.service.count == result.scheduled


# --- The schedule -------------------------------------------------------------------------------


def test_a_constant_rate_has_equal_distances() -> None:
    schedule = constant(1000, 2)
    assert len(schedule.arrivals_ns) == 2000
    assert list(schedule.arrivals_ns[:3]) == [0, 1_000_000, 2_000_000]


def test_a_poisson_schedule_is_the_same_for_the_same_seed() -> None:
    assert poisson(1000, 1, seed=7) == poisson(1000, 1, seed=7)
    assert poisson(1000, 1, seed=7) != poisson(1000, 1, seed=8)


@pytest.mark.parametrize("seed", range(5))
def test_a_poisson_schedule_has_the_rate_as_its_mean_and_no_memory(seed: int) -> None:
    rate, seconds = 2000, 20
    arrivals = poisson(rate, seconds, seed).arrivals_ns
    assert abs(len(arrivals) - rate * seconds) < 5 * math.sqrt(rate * seconds)
    gaps_s = [(later - earlier) / NS for earlier, later in pairwise(arrivals)]
    mean = sum(gaps_s) / len(gaps_s)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps_s) / len(gaps_s))
    assert deviation == pytest.approx(mean, rel=0.05)  # which is what an exponential distribution has


def test_one_schedule_can_follow_another() -> None:
    both = constant(10, 1).then(constant(100, 0.5))
    assert (len(both.arrivals_ns), both.seconds) == (60, 1.5)
    assert both.arrivals_ns[10] == NS


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (1, 0), (-1, 1), (1_000_000, 10)])
def test_a_schedule_without_sense_or_bounds_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"must be more|are more"):
        constant(rate, seconds)
    with pytest.raises(ValueError, match=r"must be more|are more"):
        poisson(rate, seconds, seed=1)


async def test_arrivals_do_not_wait_for_answers() -> None:
    async with shop(keep_silent) as silent:
        result = await load(silent.port, constant(200, 0.25), answer_s=1, patience_s=30)
        assert len(silent.requests) == result.scheduled == 50  # all of them came, and none was answered
    assert result.faults == {Fault.TIMED_OUT: 50}


async def test_the_warm_up_is_sent_and_not_recorded() -> None:
    async with shop(admit) as admitting:
        result = await load(admitting.port, constant(200, 0.5), warm_up_s=0.25)
        assert len(admitting.requests) == 100
    assert result.scheduled == result.answered.corrected.count == result.lag.count == 50
    assert (result.seconds, result.rate_scheduled) == (0.25, 200)


# --- Connections --------------------------------------------------------------------------------


async def test_connections_are_opened_as_arrivals_need_them_and_never_more_than_allowed() -> None:
    async def take_a_while(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        await asyncio.sleep(0.05)
        await admit(shop, writer, n)

    async with shop(take_a_while) as slow:
        result = await load(slow.port, constant(400, 0.25), connections_max=7, patience_s=30)
        assert slow.connections == 7
    assert all_of(Outcome.ADMITTED, result)
    assert result.connections_opened == result.connections_peak == 7


async def test_connections_that_are_wanted_from_the_start_are_opened_before_the_clock_starts() -> None:
    async with shop(admit) as admitting:
        result = await load(admitting.port, constant(100, 0.1), connections_min=5)
        assert admitting.connections >= 5
    assert all_of(Outcome.ADMITTED, result)
    assert result.faults == {}


async def test_a_connection_has_one_request_in_flight() -> None:
    crowded = []

    async def look_for_more(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        await asyncio.sleep(0.005)
        crowded.append(len(shop.requests) - shop_answered[0] > shop.connections)
        shop_answered[0] += 1
        await admit(shop, writer, n)

    shop_answered = [0]
    async with shop(look_for_more) as watching:
        result = await load(watching.port, constant(1000, 0.2), connections_max=3, patience_s=30)
    assert all_of(Outcome.ADMITTED, result)
    assert not any(crowded)


async def test_an_answer_may_come_byte_by_byte() -> None:
    async def dribble(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        for byte in answer(201, "Content-Type: application/json"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with shop(dribble) as dribbling:
        dribbling_result = await load(dribbling.port, constant(100, 0.2), connections_max=2, patience_s=30)
    assert all_of(Outcome.ADMITTED, dribbling_result)
    assert dribbling_result.connections_opened <= 2


async def test_a_connection_that_the_server_closes_after_its_answer_is_not_used_again() -> None:
    async def close_after(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        writer.write(answer(201, "Connection: close"))
        writer.close()

    async with shop(close_after) as closing:
        result = await load(closing.port, constant(200, 0.25))
        assert closing.connections >= result.scheduled
    assert all_of(Outcome.ADMITTED, result)
    assert result.connections_opened >= result.scheduled


async def test_a_reset_is_counted_and_the_next_arrival_gets_a_new_connection() -> None:
    async def reset_some(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        if n % 5 == 0:
            reset(writer)
        else:
            await admit(shop, writer, n)

    async with shop(reset_some) as resetting:
        result = await load(resetting.port, constant(200, 0.25), connections_max=1, patience_s=30)
        assert resetting.connections == 11  # each was reset but the last
    assert result.faults == {Fault.RESET: 10}
    assert result.outcomes[Outcome.ERROR] == 10
    assert result.outcomes[Outcome.ADMITTED] == 40


async def test_an_answer_that_breaks_off_is_counted() -> None:
    async def break_off(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        writer.write(answer()[:-3])
        writer.close()

    async with shop(break_off) as breaking:
        result = await load(breaking.port, constant(100, 0.1))
    assert result.faults == {Fault.CLOSED: 10}


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: ten\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 99999999\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"x" * (HEAD_BYTES_MAX + 1),
        answer() + b"and more",
    ],
)
async def test_what_is_not_one_answer_is_counted(said: bytes) -> None:
    async def say(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        writer.write(said)

    async with shop(say) as saying:
        result = await load(saying.port, constant(100, 0.05))
    assert result.faults == {Fault.MALFORMED: 5}


async def test_where_nobody_listens_every_arrival_is_an_error() -> None:
    result = await load(free_port(), constant(200, 0.1), connections_min=2)
    assert result.faults == {Fault.CONNECT_REFUSED: 20}
    assert all_of(Outcome.ERROR, result)
    assert "20 arrivals were never answered" in "\n".join(summary(result))


async def test_an_idle_connection_that_the_server_closes_costs_nobody_an_answer() -> None:
    async def close_later(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        await admit(shop, writer, n)
        await writer.drain()
        writer.close()

    # Far apart, so that the end is heard of before the next arrival.
    async with shop(close_later) as closing:
        result = await load(closing.port, constant(4, 1))
        assert closing.connections == 4
    assert all_of(Outcome.ADMITTED, result)


# --- What becomes of an arrival -----------------------------------------------------------------


async def test_an_arrival_that_finds_no_connection_in_time_is_unsent() -> None:
    async with shop(keep_silent) as silent:
        result = await load(
            silent.port,
            constant(1000, 0.05),
            connections_min=2,
            connections_max=2,
            patience_s=0.5,
            answer_s=1,
        )
        assert len(silent.requests) == 50 - result.outcomes[Outcome.UNSENT]
    assert result.outcomes[Outcome.UNSENT] == result.faults[Fault.PATIENCE] >= 48
    assert result.lag.count == 50


async def test_an_arrival_that_finds_the_line_full_is_unsent() -> None:
    async with shop(keep_silent) as silent:
        result = await load(
            silent.port,
            constant(1000, 0.02),
            connections_min=1,
            connections_max=1,
            patience_s=1,
            line_max=3,
            answer_s=2,
        )
    assert result.faults[Fault.LINE_FULL] == 16
    assert result.outcomes[Outcome.UNSENT] >= 19


async def test_answers_are_classed_by_their_status() -> None:
    statuses = [201, 409, 410, 503, 401, 422, 500, 200, 204]

    async def in_turn(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        status = statuses[n % len(statuses)]
        writer.write(answer(status, "Retry-After: 1", body=b"" if status == 204 else b"{}"))

    async with shop(in_turn) as mixed:
        result = await load(mixed.port, constant(900, 0.1))
    assert result.statuses == dict.fromkeys(sorted(statuses), 10)
    assert result.outcomes == {
        Outcome.ADMITTED: 10,
        Outcome.REFUSED: 20,
        Outcome.OVERLOADED: 10,
        Outcome.OTHER: 50,
        Outcome.ERROR: 0,
        Outcome.UNSENT: 0,
    }
    assert {outcome: of.corrected.count for outcome, of in result.latency.items()} == {
        outcome: count for outcome, count in result.outcomes.items() if outcome in result.latency
    }


async def test_a_503_that_does_not_say_when_to_come_back_is_counted() -> None:
    async def overloaded(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        writer.write(answer(503) if n % 4 == 0 else answer(503, "retry-after: 2"))

    async with shop(overloaded) as busy:
        result = await load(busy.port, constant(200, 0.2))
    assert all_of(Outcome.OVERLOADED, result)
    assert result.without_retry_after == 10
    assert "503 without Retry-After: 10" in "\n".join(summary(result))


async def test_every_arrival_ends_in_one_class_whatever_the_server_does() -> None:
    chance = random.Random(11)

    async def misbehave(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        match chance.randrange(8):
            case 0:
                reset(writer)
            case 1:
                writer.write(answer()[:20])
                writer.close()
            case 2:
                await asyncio.sleep(0.03)
                writer.write(answer(409))
            case 3:
                writer.write(b"nonsense\r\n\r\n")
            case 4:
                writer.write(answer(503, "Connection: close"))
                writer.close()
            case 5 if n % 50 == 0:
                await shop.never.wait()
            case _:
                await admit(shop, writer, n)

    schedule = poisson(1000, 0.6, seed=5)
    async with shop(misbehave) as bad:
        # load() looks at the sums. In uvloop's loop, as the command does it.
        loading = load(bad.port, schedule, connections_max=6, patience_s=0.2, line_max=20, answer_s=0.4)
        result = await asyncio.to_thread(uvloop.run, loading)
    assert result.scheduled == len(schedule.arrivals_ns)


def test_every_fault_is_of_one_class() -> None:
    assert {outcome_of(fault) for fault in Fault} == {Outcome.ERROR, Outcome.UNSENT}
    assert [fault for fault in Fault if outcome_of(fault) is Outcome.UNSENT] == [
        Fault.PATIENCE,
        Fault.LINE_FULL,
    ]


async def test_a_result_that_does_not_add_up_is_none() -> None:
    async with shop(admit) as admitting:
        result = await load(admitting.port, constant(100, 0.05))
    with pytest.raises(Miscounted):
        replace(result, scheduled=result.scheduled + 1)


# --- The generator itself -----------------------------------------------------------------------


async def test_a_generator_that_did_not_keep_up_says_so() -> None:
    async with shop(admit) as admitting:
        result = await load(admitting.port, constant(100, 0.1))
    well = replace(result, lag=Histogram([1_000_000] * 100), busy_share=0.5)
    assert well.generator_kept_up
    assert "generator: kept up" in summary(well)[-1]
    late = Histogram([1_000_000] * 98 + [int((LAG_P99_MS_MAX + 1) * NS_IN_MS)] * 2)
    for bad in (
        replace(well, lag=late),
        replace(well, busy_share=BUSY_SHARE_MAX + 0.01),
        replace(well, faults={Fault.NO_SOCKET: 1}),
    ):
        assert not bad.generator_kept_up
        assert "DID NOT KEEP UP" in summary(bad)[-1]
        assert bad.as_json()["generator_kept_up"] is False
    assert replace(well, busy_poll=True, busy_share=1.0).generator_kept_up


async def test_a_generator_that_was_held_up_has_it_in_its_lag() -> None:
    async def hold_up(shop: Shop, writer: asyncio.StreamWriter, n: int) -> None:
        if n == 10:
            time.sleep(0.2)  # the server shares the generator's loop here: both stand still
        await admit(shop, writer, n)

    async with shop(hold_up) as holding:
        result = await load(holding.port, constant(200, 0.5))
    assert result.lag.max_ms >= 150
    assert not result.generator_kept_up


@pytest.mark.parametrize("busy_poll", [False, True])
async def test_nothing_stays_open(busy_poll: bool) -> None:
    async with shop(admit) as admitting:
        await load(admitting.port, constant(200, 0.1), connections_min=3, busy_poll=busy_poll)
        async with asyncio.timeout(RUN_SECONDS_MAX):
            while admitting.connected_now:
                await asyncio.sleep(0.001)


async def test_nothing_stays_open_when_a_run_is_cancelled() -> None:
    async with shop(keep_silent) as silent:
        running = asyncio.create_task(load(silent.port, constant(100, 5)))
        async with asyncio.timeout(RUN_SECONDS_MAX):
            while len(silent.requests) < 3:
                await asyncio.sleep(0.001)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert len(asyncio.all_tasks()) == 1


async def test_a_request_that_cannot_be_made_ends_the_run() -> None:
    def request_of(n: int) -> bytes:
        raise LookupError(f"no request {n}")

    async with shop(admit) as admitting:
        plan = Plan(host="127.0.0.1", port=admitting.port, schedule=constant(100, 5))
        with pytest.raises(LookupError, match="no request 0"):
            await run(plan, request_of)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"connections_max": 0},
        {"connections_min": 9, "connections_max": 8},
        {"warm_up_s": 1.0},
        {"patience_s": 0.0},
        {"answer_s": 0.0},
        {"line_max": 0},
    ],
)
def test_a_plan_without_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Plan(host="127.0.0.1", port=1, schedule=constant(1, 1), **settings)


# --- Requests, heads, histograms ----------------------------------------------------------------


async def test_every_request_reserves_with_a_key_of_its_own_for_the_shoppers_in_turn() -> None:
    async with shop(admit) as admitting:
        await load(admitting.port, constant(100, 0.3), connections_max=1, patience_s=30)
    keys = set()
    for n, request in enumerate(admitting.requests):
        head, _, body = request.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in rest)
        assert first == f"POST {PATH} HTTP/1.1"
        assert headers["Host"] == f"127.0.0.1:{admitting.port}"
        assert headers["Authorization"] == f"Bearer {SHOPPERS[n % 3][1]}"
        assert headers["Content-Type"] == "application/json"
        assert json.loads(body) == {"sku": "phone", "quantity": 1}
        keys.add(headers["Idempotency-Key"])
    assert keys == {f"run-{n}" for n in range(30)}


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "tökén"])
def test_a_token_cannot_break_out_of_its_header(token: str) -> None:
    with pytest.raises(ValueError, match="characters"):
        reservations(urlsplit(f"http://h{PATH}"), [("u", token)], run="r", sku="s")


@pytest.mark.parametrize(
    ("head", "status", "body_bytes", "closes", "says_when"),
    [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 300", 201, 300, False, False),
        (b"HTTP/1.1 503 Busy\r\nCONTENT-LENGTH:\t7 \r\nRETRY-AFTER: 1", 503, 7, False, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, Close", 200, 0, True, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Connection: close", 200, 0, False, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", 200, 0, True, False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 300", 304, 0, False, False),
    ],
)
def test_a_head_says_where_its_answer_ends_and_whether_the_connection_goes_on(
    head: bytes, status: int, body_bytes: int, closes: bool, says_when: bool
) -> None:
    assert head_of(head + b"\r\n") is None
    head += b"\r\n\r\n"
    assert head_of(head) == Head(status, len(head) + body_bytes, closes, says_when)


def test_a_head_in_a_body_is_not_looked_at() -> None:
    with pytest.raises(Malformed):
        head_of(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")


def test_a_percentile_is_never_less_than_what_was_seen_and_within_its_precision() -> None:
    chance = random.Random(2)
    durations = sorted(int(10 ** chance.uniform(0, 11)) for _ in range(20_000))
    histogram = Histogram(durations)
    for percent in (0.1, 25, *PERCENTILES, 100):
        exact = durations[math.ceil(len(durations) * percent / 100) - 1] / NS_IN_MS
        assert exact <= histogram.percentile_ms(percent) <= exact * 1.004
    assert histogram.max_ms == durations[-1] / NS_IN_MS


def test_histograms_add_up() -> None:
    both, left, right = Histogram([1, 10**9, 5]), Histogram([1, 5]), Histogram([10**9])
    left.merge(right)
    assert left.as_json() == both.as_json()
    assert Histogram().as_json()["p99.9_ms"] == 0


# --- The command --------------------------------------------------------------------------------


async def command(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtests.openloop",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(RUN_SECONDS_MAX):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("arrivals", [[], ["--poisson", "--seed", "4"]])
async def test_the_command_prints_a_summary_and_writes_the_result(
    tmp_path: Path, arrivals: list[str]
) -> None:
    tokens, written = tmp_path / "tokens.json", tmp_path / "result.json"
    tokens.write_text(json.dumps(SHOPPERS))
    async with shop(admit) as admitting:
        url = f"http://127.0.0.1:{admitting.port}{PATH}"
        options = [
            "--url",
            url,
            "--rate",
            "200",
            "--seconds",
            "0.5",
            "--warm-up",
            "0.2",
            "--connections",
            "8",
        ]
        code, out, err = await command(*options, *arrivals, "--tokens", str(tokens), "--json", str(written))
    assert err == ""
    result = json.loads(written.read_text())
    assert result["outcomes"]["admitted"] == result["scheduled"] > 0
    assert code == (0 if result["generator_kept_up"] else 1)
    assert f"{result['scheduled']} arrivals in 0.5 s" in out
    assert set(result["latency"]["admitted"]["corrected"]) == {
        "count",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "p99.9_ms",
        "max_ms",
    }


async def test_the_command_says_in_one_line_what_is_wrong_with_its_options(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text("[]")
    missing = str(tmp_path / "missing.json")
    for url, file in (
        (f"ftp://h{PATH}", str(tokens)),
        (f"http://h{PATH}", missing),
        ("http://h", str(tokens)),
    ):
        code, _, err = await command("--url", url, "--rate", "1", "--seconds", "1", "--tokens", file)
        assert code == 2
        assert err.startswith("openloop: ")
        assert err.count("\n") == 1
