"""Traffic on its way: from a gateway's memory through Redis into the book, and what is lost on it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest
from redis.asyncio import Redis

import gateway.traffic
from gateway.traffic import Traffic
from reservation.clock import StoreClock
from reservation.outcomes import StoreUnavailable
from reservation.redis_store import connect_redis
from reservation.servers import connected
from reservation.traffic import Minute, Notes, TrafficLog, minute_of
from settlement.book import Book
from settlement.traffic import TrafficCopy
from tests.ha.redis_servers import Nodes
from tests.servers import free_port

KEY = b"the deployment's"


class Clock(StoreClock):
    """Stands until it is told to go on."""

    ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def connection(postgres_dsn: str) -> Any:
    with psycopg.connect(postgres_dsn, autocommit=True) as found:
        yield found


def booked(connection: psycopg.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT what, sum(count)::int FROM traffic GROUP BY what").fetchall())


def people(connection: psycopg.Connection) -> Any:
    return connection.execute("SELECT visitors, participants FROM traffic_people").fetchone()


async def see(traffic: Traffic, visitors: range, *, refused: int) -> None:
    for number in visitors:
        traffic.visited("sale", f"user-{number}")
    traffic.asked("sale", "sold_out", [f"user-{number}" for number in visitors][:refused])
    await traffic.write()


async def test_what_two_processes_noted_is_in_the_book(
    redis_client: Redis, book: Book, connection: psycopg.Connection
) -> None:
    log, copy = TrafficLog(redis_client), TrafficCopy(TrafficLog(redis_client), book)
    one, other = (Traffic(log, StoreClock(), KEY) for _ in range(2))
    await see(one, range(20), refused=5)
    await see(other, range(10, 30), refused=8)
    await see(other, range(10, 30), refused=8)
    await copy.step()
    assert booked(connection) == {"visit": 60, "sold_out": 21}
    assert people(connection) == (30, 13)
    before = connection.execute("SELECT xmin::text FROM traffic").fetchall()
    await copy.step()
    assert connection.execute("SELECT xmin::text FROM traffic").fetchall() == before, (
        "nothing is written twice"
    )


async def test_a_store_that_has_lost_everything_takes_nothing_back(
    redis_client: Redis, book: Book, connection: psycopg.Connection
) -> None:
    clock, log = Clock(), TrafficLog(redis_client)
    clock.ms = await log.now_ms()
    traffic, copies = Traffic(log, clock, KEY), [TrafficCopy(log, book) for _ in range(2)]
    await see(traffic, range(20), refused=5)
    await copies[0].step()
    await redis_client.flushall()
    await see(traffic, range(3), refused=1)
    for copy in copies:  # one that remembers, and one that has just begun
        await copy.step()
    assert booked(connection) == {"visit": 20, "sold_out": 5}
    assert people(connection) == (20, 5)


async def test_what_is_counted_belongs_to_the_minute_in_which_counting_began(redis_client: Redis) -> None:
    clock, log = Clock(), TrafficLog(redis_client)
    traffic = Traffic(log, clock, KEY)
    first = minute_of(clock.ms)
    traffic.count("sale", "held", 2)
    clock.ms += 60_000
    await traffic.write()
    traffic.count("sale", "held")
    await traffic.write()
    noted = await log.read("sale", first // 60, (first + 1) // 60)
    assert noted.counts == {Minute(first, "held"): 2, Minute(first + 1, "held"): 1}


async def test_while_the_store_is_away_nothing_fails_or_grows_without_end_and_then_all_is_written(
    redis_client: Redis, redis_server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.traffic, "PEOPLE_MAX", 30)
    monkeypatch.setattr(gateway.traffic, "MINUTES_MAX", 5)
    clock = Clock()
    async with connect_redis(f"redis://127.0.0.1:{free_port()}/0") as nobody:
        traffic = Traffic(TrafficLog(nobody), clock, KEY)
        for number in range(20):
            await see(traffic, range(number * 5, number * 5 + 5), refused=1)
            clock.ms += 60_000
    notes = traffic._notes["sale"]
    assert len(notes.visitors | notes.participants) <= 30 + 5
    assert len(notes.counts) <= 5
    kept = sum(times for minute, times in notes.counts.items() if minute.what == "visit")
    traffic._log = TrafficLog(redis_client)
    await traffic.write()
    assert not traffic._notes
    found = await traffic._log.read("sale", minute_of(Clock.ms) // 60, minute_of(Clock.ms) // 60 + 1)
    assert sum(times for minute, times in found.counts.items() if minute.what == "visit") == kept
    assert found.visitors > 0


class Hanging(TrafficLog):
    """Of a store that does not answer, or whose answer is lost on the way."""

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent

    async def _call(self, campaign: str, *command: Any) -> Any:
        await asyncio.sleep(0)
        raise StoreUnavailable("away", sent=self.sent)


@pytest.mark.parametrize("sent", [True, False])
async def test_a_count_that_may_have_been_made_is_not_made_again(sent: bool) -> None:
    notes = Notes(Counter({Minute(1, "held"): 3}), {b"ann"}, {7})
    left = await Hanging(sent=sent).add("sale", notes, 0)
    assert left.counts == ({} if sent else {Minute(1, "held"): 3})
    assert (left.visitors, left.participants) == ({b"ann"}, {7}), "who came twice is one"


async def test_nobody_is_named_in_the_store(redis_client: Redis) -> None:
    traffic = Traffic(TrafficLog(redis_client), StoreClock(), KEY)
    traffic.visited("sale", "ann\udce9@example.com")
    traffic.asked("sale", "held", ["ann@example.com"])
    assert b"ann" not in repr(traffic._notes).encode()
    await traffic.write()
    for key in await redis_client.keys("*"):
        assert b"ann" not in key + (await redis_client.dump(key) or b"")
        assert await redis_client.ttl(key) > 0 or key.endswith(b":noted"), "it does not stay for ever"


async def test_traffic_is_noted_on_a_cluster(
    cluster: Nodes, book: Book, connection: psycopg.Connection
) -> None:
    async with connected(cluster.url) as servers:
        traffic = Traffic(TrafficLog(servers), StoreClock(), KEY)
        for number in range(20):
            traffic.count(f"sale-{number}", "held")
            traffic.visited(f"sale-{number}", "ann")
        await traffic.write()
        await TrafficCopy(TrafficLog(servers), book).step()
    assert booked(connection) == {"held": 20, "visit": 20}
