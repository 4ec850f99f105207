"""The part that asks how many reservations a second come through RabbitMQ into PostgreSQL, and how late.

Each round first drains a backlog, as after an outage: nothing else runs, and the orders a second are to be
held against what a gateway accepts in a second. Then it settles a steady stream and looks at the lag. Last, a
gateway takes all that it can while everything is settled, on the same two cores and in the same seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import psycopg
import redis

from loadtests.bench.figures import Figure
from loadtests.bench.peak import Unverified
from loadtests.bench.plan import CAMPAIGN, RESERVATIONS, STOCK, sale, terms_on_sale
from loadtests.bench.rabbit import installed
from loadtests.bench.servers import Server
from loadtests.bench.settling import Settling, broker_server, settling
from loadtests.bench.subjects import DOORBUSTER, Bench, Place, Subject, doorbuster
from loadtests.bench.wrk import Load, put_load
from reservation.ids import digest_of
from reservation.redis_store import RedisStore, connect_redis

PART = "settle"
SETTLED = "settled"
IN_TIME = "settled within 1 s"
LAGS = {"lag, median": 0.5, "lag, 99th percentile": 0.99}
TOGETHER = "accepted while settling"
MEANWHILE = "settled meanwhile"
BEHIND = "settled after the last was accepted"
GATEWAY = "gateway"
WARM_UP_SECONDS = 2
ASKING_AT_ONCE = 64
"""As many as the peak part has connections: it decides how many are made together."""
STEADY_PER_SECOND = 10_000
"""About half of what a gateway accepts on one core."""
TICK_SECONDS = 0.002
SETTLE_SECONDS_MAX = 120.0
LOOK_SECONDS = 0.05

Found = dict[tuple[str, str], float]
"""By name and unit."""
Reserve = Callable[[int], Coroutine[None, None, None]]


def measure(bench: Bench, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Figure]:
    """Doorbuster alone: none of its peers has a book. Raises Unverified, ServerFailed."""
    if DOORBUSTER not in [subject.name for subject in subjects]:
        return []
    if not installed():
        say("Not installed, and left out: RabbitMQ, and settling through it.")
        return []
    rounds: list[Found] = []
    with broker_server(bench.cores) as broker:
        for number in range(bench.options.rounds):
            drained, steady, together = (
                _alone(part, bench, broker) for part in (_drain, _keep_up, _together)
            )
            rate, cost = drained[SETTLED, "1/s"], sum(drained.values()) - drained[SETTLED, "1/s"]
            say(
                f"round {number + 1}  {SETTLED:<26}{rate:>9,.0f}/s  {cost:.1f} us each,"
                f" {steady[IN_TIME, 'share']:.2%} within 1 s at {STEADY_PER_SECOND:,}/s"
            )
            rate, share = together[TOGETHER, "1/s"], together[MEANWHILE, "share"]
            say(f"round {number + 1}  {TOGETHER:<26}{rate:>9,.0f}/s  {share:.2f} of it {MEANWHILE}")
            rounds.append(drained | steady | together)
    return [
        Figure(PART, DOORBUSTER, name, unit, tuple(found[name, unit] for found in rounds))
        for name, unit in rounds[0]
    ]


def _alone(
    part: Callable[[Bench, Settling], Coroutine[None, None, Found]], bench: Bench, broker: Server
) -> Found:
    """What a part finds on servers of its own."""
    with settling(bench.cores, broker) as parts:
        return asyncio.run(part(bench, parts))


async def _drain(bench: Bench, parts: Settling) -> Found:
    """How fast a backlog is settled, and what of each part's CPU time that takes."""
    backlog = bench.options.backlog
    with ExitStack() as running:
        async with _shoppers(parts) as reserve:
            numbers = iter(range(backlog))

            async def ask() -> None:
                for number in numbers:
                    await reserve(number)

            await asyncio.gather(*(ask() for _ in range(ASKING_AT_ONCE)))
        parts.start(running)
        started, used_before = time.monotonic(), parts.cpu_seconds()
        await _settled(parts, backlog)
        seconds, used = time.monotonic() - started, parts.cpu_seconds()
        _verify(parts, backlog)
    found: Found = {(SETTLED, "1/s"): backlog / seconds}
    for name, before in used_before.items():
        found[name, "us/reservation"] = (used[name] - before) * 1e6 / backlog
    return found


async def _keep_up(bench: Bench, parts: Settling) -> Found:
    """How late rows are while reservations come at a steady rate, whether or not those before are done."""
    steady = 2 * bench.options.seconds * STEADY_PER_SECOND
    with ExitStack() as running:
        parts.start(running)
        async with _shoppers(parts) as reserve:
            await reserve(0)  # from here on, all are connected
            await _settled(parts, 1)
            before = parts.lags()
            await _at_a_steady_rate(reserve, steady)
        await _settled(parts, 1 + steady)
        _verify(parts, 1 + steady)
        below = {bound: settled - before[bound] for bound, settled in parts.lags().items()}
    found: Found = {(IN_TIME, "share"): below[1.0] / steady}
    for name, share in LAGS.items():
        # A histogram knows no more than the bound that so many are not above.
        found[name, "s"] = min(bound for bound, settled in below.items() if settled >= share * steady)
    return found


async def _together(bench: Bench, parts: Settling) -> Found:
    """What a gateway accepts while all of it is settled, and what that takes of each part's CPU time."""
    seconds = 2 * bench.options.seconds
    with ExitStack() as running:
        place = Place(parts.home, parts.redis_port)
        gateway = running.enter_context(doorbuster(replace(bench, book_dsn=parts.book_dsn), place))
        parts.pids[GATEWAY] = [gateway.pid]
        parts.start(running)

        def load(seconds: int) -> Load:
            cores, connections = bench.cores, bench.options.connections
            return put_load(gateway.port, bench.users, cores.rest, seconds=seconds, connections=connections)

        load(WARM_UP_SECONDS)  # until as much is settled as is accepted
        before, used_before = parts.settled(), parts.cpu_seconds()
        found = load(seconds)
        ended = time.monotonic()
        accepted, meanwhile, used = found.answered(201), parts.settled() - before, parts.cpu_seconds()
        with redis.Redis(port=parts.redis_port) as client:
            made = int(client.hlen(RESERVATIONS))
        await _settled(parts, made)
        behind = time.monotonic() - ended
        _verify(parts, made)
    return {
        (TOGETHER, "1/s"): accepted / found.seconds,
        (MEANWHILE, "share"): meanwhile / accepted,
        (BEHIND, "s"): behind,
        **{
            (f"{name}, both at once", "us/reservation"): (used[name] - was) * 1e6 / accepted
            for name, was in used_before.items()
        },
    }


async def _at_a_steady_rate(reserve: Reserve, count: int) -> None:
    started = time.monotonic()
    asked: list[asyncio.Task[None]] = []
    while len(asked) < count:
        due = min(count, int((time.monotonic() - started) * STEADY_PER_SECOND))
        asked += [asyncio.create_task(reserve(number)) for number in range(len(asked) + 1, due + 1)]
        await asyncio.sleep(TICK_SECONDS)
    await asyncio.gather(*asked)


@asynccontextmanager
async def _shoppers(parts: Settling) -> AsyncIterator[Reserve]:
    """What makes the reservation of a shopper by their number, as a gateway would."""
    client = connect_redis(parts.redis_url)
    try:
        store = RedisStore(client)
        terms = await terms_on_sale(store, sale(STOCK))

        async def reserve(number: int) -> None:
            user = f"user-{number:08}"
            await store.reserve(terms, digest_of(CAMPAIGN, user, "key"), user)

        yield reserve
    finally:
        await client.aclose()


async def _settled(parts: Settling, count: int) -> None:
    """Wait for so many. Raises Unverified."""
    until = time.monotonic() + SETTLE_SECONDS_MAX
    while (settled := parts.settled()) < count:
        if time.monotonic() > until:
            raise Unverified(f"settle: {settled:,.0f} of {count:,} in {SETTLE_SECONDS_MAX:g} s")
        await asyncio.sleep(LOOK_SECONDS)


def _verify(parts: Settling, count: int) -> None:
    """Whether what the workers say they settled is there, once. Raises Unverified."""
    with psycopg.connect(parts.book_dsn) as connection:
        rows = connection.execute(
            "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_events)"
        ).fetchone()
    if rows != (count, count):
        raise Unverified(f"settle: {count:,} reservations, and {rows} orders and events")
