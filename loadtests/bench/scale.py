"""The part that asks what a full store costs: memory for each reservation, and speed.

One gateway each on an empty store, on one with millions of live reservations, and on one with thousands of
campaigns. All are there at once, and are asked in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from loadtests.bench.figures import Figure
from loadtests.bench.peak import in_turn
from loadtests.bench.plan import CAMPAIGN, STOCK, sale, terms_on_sale
from loadtests.bench.servers import Server, directory, redis_server
from loadtests.bench.subjects import DOORBUSTER, Bench, Place, Subject
from loadtests.bench.wrk import put_load
from reservation.ids import digest_of
from reservation.kernel import Terms
from reservation.keys import ALL_SHARDS
from reservation.outcomes import Outcome
from reservation.redis_store import RedisStore, connect_redis

PART = "a full store"
EMPTY, FULL, MANY = "empty store", "millions of reservations", "thousands of campaigns"
MEMORY_AT = 1_000_000
"""Where memory is measured. Redis doubles its tables now and then, so it is not the same everywhere."""
_AT_ONCE = 4_096


def measure(bench: Bench, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Figure]:
    """Doorbuster alone. Raises ServerFailed, LoadFailed."""
    subject = next((one for one in subjects if one.name == DOORBUSTER), None)
    if subject is None:
        return []
    rates: dict[str, list[float]] = {EMPTY: [], FULL: [], MANY: []}
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name in rates:
            home = stack.enter_context(directory())
            store = stack.enter_context(redis_server(home, bench.cores.rest, "everysec"))
            if name == FULL:
                bytes_each = asyncio.run(_fill(store.port, bench.options.reservations, say))
            if name == MANY:
                asyncio.run(_configure(store.port, bench.options.campaigns))
                say(f"{bench.options.campaigns:,} campaigns are there")
            place = Place(home, store.port)
            servers[name] = stack.enter_context(subject.start(bench, place))
        for server in servers.values():
            _rate(bench, server, bench.options.warm_up_seconds)
        for number in range(bench.options.rounds):
            for name in in_turn(list(rates), number):
                rates[name].append(_rate(bench, servers[name], bench.options.seconds))
                say(f"round {number + 1}  {name:<26}{rates[name][-1]:>9,.0f}/s")
    figures = [Figure(PART, name, "accepted", "1/s", tuple(found)) for name, found in rates.items()]
    return [*figures, Figure(PART, FULL, "memory", "bytes/reservation", (bytes_each,))]


def _rate(bench: Bench, server: Server, seconds: int) -> float:
    connections = bench.options.connections
    load = put_load(server.port, bench.users, bench.cores.rest, seconds=seconds, connections=connections)
    return load.answered(201) / load.seconds


async def _fill(port: int, reservations: int, say: Callable[[str], None]) -> float:
    """Make so many reservations, each of another user; the bytes that each of MEMORY_AT took."""
    client = connect_redis(f"redis://127.0.0.1:{port}/0")
    try:
        store, bytes_each = RedisStore(client), 0.0
        terms = await terms_on_sale(store, sale(STOCK))
        before = int((await client.info("memory"))["used_memory"])
        for first in range(0, reservations, _AT_ONCE):
            await _reserve(store, terms, range(first, min(reservations, first + _AT_ONCE)))
            # As if it had been settled. What goes to the book is another part's matter.
            await client.delete(*(key for shard in ALL_SHARDS for key in (shard.outbox, shard.unsettled)))
            if first + _AT_ONCE >= min(MEMORY_AT, reservations) and not bytes_each:
                used = int((await client.info("memory"))["used_memory"]) - before
                bytes_each = used / min(first + _AT_ONCE, reservations)
                say(f"{bytes_each:.0f} bytes a reservation, at {first + _AT_ONCE:,}")
        say(f"{reservations:,} reservations are there")
        return bytes_each
    finally:
        await client.aclose()


async def _configure(port: int, campaigns: int) -> None:
    client = connect_redis(f"redis://127.0.0.1:{port}/0")
    try:
        store = RedisStore(client)
        for number in range(campaigns):
            await terms_on_sale(store, sale(STOCK) | {"id": f"{CAMPAIGN}-{number}"})
    finally:
        await client.aclose()


async def _reserve(store: RedisStore, terms: Terms, numbers: range) -> None:
    group = _Group(len(numbers))
    for number in numbers:
        user = f"user-{number:08d}"
        store.ask(terms, digest_of(CAMPAIGN, user, "before"), user, group)
    await group.all_made


class _Group:
    """Who waits for many reservations."""

    span_id = 0

    def __init__(self, left: int) -> None:
        self._left = left
        self.all_made: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, outcome: Outcome, now_ms: int, record: bytes | None) -> None:
        if outcome is not Outcome.MOVED:
            self.failed(RuntimeError(f"not made: {outcome}"))
        self._left -= 1
        if self._left == 0 and not self.all_made.done():
            self.all_made.set_result(None)

    def failed(self, error: BaseException) -> None:
        if not self.all_made.done():
            self.all_made.set_exception(error)
