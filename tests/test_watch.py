"""Moves are heard of in every process, and also when the connection to the store was lost meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from reservation import watch
from reservation.ids import ReservationId
from reservation.outcomes import StoreUnavailable
from reservation.redis_store import connect_redis
from reservation.watch import CHANNEL, Watch
from tests.conftest import _redis_of_the_system
from tests.servers import redis_server
from tests.stack import eventually

MOVE = Path(watch.__file__).parent / "lua" / "move.lua"


def one(number: int) -> ReservationId:
    return ReservationId.derive("sale", "ann", str(number))


class Shelf:
    """A store of versions of reservations, and how they were read."""

    def __init__(self) -> None:
        self.versions: dict[ReservationId, int] = {}
        self.largest = 0
        self.away = False
        self.refusals = 0
        self.turns: asyncio.Semaphore | None = None
        """Each read takes one, and waits for it."""
        self.asked: list[set[ReservationId]] = []

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Any]:
        if self.away:
            self.refusals += 1
            raise StoreUnavailable("away")
        self.asked.append(set(ids))
        self.largest = max(self.largest, len(ids))
        if self.turns is not None:
            await self.turns.acquire()
        return [
            SimpleNamespace(id=each, version=self.versions[each]) if each in self.versions else None
            for each in ids
        ]


class Ear:
    """What was told, newest last."""

    def __init__(self) -> None:
        self.told: dict[ReservationId, list[int]] = {}

    async def tell(self, reservation: Any) -> None:
        self.told.setdefault(reservation.id, []).append(reservation.version)

    async def hears(self, reservation_id: ReservationId, version: int) -> None:
        async def last() -> int:
            return self.told.get(reservation_id, [0])[-1]

        await eventually(last, lambda found: found == version)


class Watching:
    def __init__(self, client: Redis) -> None:
        self.client, self.shelf, self.ear = client, Shelf(), Ear()
        self.store: Any = self.shelf
        self.watch = Watch(client, self.store)

    async def move(self, reservation_id: ReservationId, version: int) -> None:
        self.shelf.versions[reservation_id] = version
        await self.client.publish(f"{CHANNEL}{reservation_id}", version)

    def add(self, *ids: ReservationId) -> None:
        for each in ids:
            self.shelf.versions.setdefault(each, 1)
            self.watch.add(each, self.ear.tell)

    async def connections(self) -> int:
        return len([each for each in await self.client.client_list() if int(each["sub"]) > 0])


@pytest.fixture
async def watching(redis_client: Redis) -> AsyncIterator[Watching]:
    found = Watching(redis_client)
    yield found
    await found.watch.close()


def test_the_move_script_says_it_where_it_is_heard() -> None:
    assert f"redis.call('PUBLISH', '{CHANNEL}' .. reservation_id" in MOVE.read_text()


async def test_every_move_is_told_from_the_moment_it_is_listened_to(watching: Watching) -> None:
    watching.add(one(1), one(2))
    await watching.ear.hears(one(1), 1)
    await watching.ear.hears(one(2), 1)
    for version in range(2, 6):
        await watching.move(one(1), version)
        await watching.ear.hears(one(1), version)
    assert watching.ear.told[one(2)] == [1], "what did not move is not told again"


async def test_there_is_one_connection_and_none_when_nobody_watches(watching: Watching) -> None:
    assert await watching.connections() == 0
    ids = [one(n) for n in range(200)]
    watching.add(*ids)
    for each in ids:
        await watching.ear.hears(each, 1)
    assert await watching.connections() == 1
    for each in ids[1:]:
        watching.watch.remove(each)

    async def subscribed() -> int:
        return sum(int(each["sub"]) for each in await watching.client.client_list())

    await eventually(subscribed, lambda count: count == 1)
    await watching.move(ids[0], 2)
    await watching.ear.hears(ids[0], 2)
    watching.watch.remove(ids[0])
    await eventually(watching.connections, lambda count: count == 0)
    watching.add(one(1))
    await watching.move(one(1), 7)
    await watching.ear.hears(one(1), 7)


async def test_what_is_left_and_watched_again_at_once_misses_nothing(watching: Watching) -> None:
    watching.add(one(1), one(2))
    await watching.ear.hears(one(1), 1)
    for version in range(2, 30):
        watching.watch.remove(one(1))
        await watching.move(one(1), version)  # while nobody listens
        watching.add(one(1))
        await watching.ear.hears(one(1), version)


async def test_what_is_watched_again_while_others_are_read_misses_nothing(watching: Watching) -> None:
    watching.add(one(1), one(2), one(3))
    for number in (1, 2, 3):
        await watching.ear.hears(one(number), 1)
    shelf = watching.shelf
    shelf.turns = asyncio.Semaphore(0)

    async def asked(ids: set[ReservationId]) -> None:
        await eventually(lambda: asyncio.sleep(0, shelf.asked[-1]), lambda found: found == ids)

    await watching.move(one(3), 2)
    await asked({one(3)})
    await watching.move(one(1), 2)
    await watching.move(one(2), 2)
    heard = {one(1), one(2)}
    await eventually(lambda: asyncio.sleep(0, watching.watch._moved), lambda found: found == heard)
    watching.watch.remove(one(1))
    shelf.turns.release()
    await asked({one(2)})
    watching.add(one(1))  # its move was heard, and told to nobody
    for _ in range(10):
        shelf.turns.release()
    await watching.ear.hears(one(1), 2)


async def test_a_lost_connection_is_made_up_for(watching: Watching) -> None:
    watching.add(one(1), one(2))
    await watching.ear.hears(one(2), 1)
    for version in range(2, 6):
        watching.shelf.versions[one(1)] = version  # it moved, and nobody could hear it
        await watching.client.client_kill_filter(_type="pubsub")
        await watching.ear.hears(one(1), version)
        await watching.move(one(2), version)
        await watching.ear.hears(one(2), version)


async def test_a_store_that_is_away_is_asked_again(watching: Watching) -> None:
    watching.shelf.away = True
    watching.add(one(1))
    await eventually(lambda: asyncio.sleep(0, watching.shelf.refusals), lambda count: count >= 3)
    watching.shelf.away = False
    await watching.ear.hears(one(1), 1)


async def test_a_store_that_says_nothing_is_asked_for_a_word(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 0.05)
    watching.add(one(1))
    await watching.ear.hears(one(1), 1)

    async def words() -> int:
        found = await watching.client.info("commandstats")
        return int(found.get("cmdstat_ping", {"calls": 0})["calls"])

    before = await words()
    await eventually(words, lambda count: count >= before + 3)
    assert watching.ear.told[one(1)] == [1], "it was the same connection all the time"
    await watching.move(one(1), 2)
    await watching.ear.hears(one(1), 2)


async def test_a_store_that_has_gone_silent_is_left(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the network swallows everything: no end of the connection is ever seen."""
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 0.1)
    watching.add(one(1))
    await watching.ear.hears(one(1), 1)
    await watching.client.client_pause(1_000)
    watching.shelf.versions[one(1)] = 2
    await watching.ear.hears(one(1), 2)


async def test_a_thousand_that_move_at_once_are_read_in_pieces(watching: Watching) -> None:
    ids = [one(n) for n in range(1_000)]
    watching.add(*ids)
    for each in ids:
        await watching.ear.hears(each, 1)
    async with watching.client.pipeline(transaction=False) as pipeline:
        for each in ids:
            watching.shelf.versions[each] = 2
            pipeline.publish(f"{CHANNEL}{each}", 2)
        await pipeline.execute()
    for each in ids:
        await watching.ear.hears(each, 2)
    assert watching.shelf.largest <= watch.BATCH_MAX


async def test_one_that_cannot_be_told_hides_no_other(watching: Watching) -> None:
    async def broken(reservation: Any) -> None:
        raise ValueError("a defect")

    watching.shelf.versions[one(1)] = 1
    watching.watch.add(one(1), broken)
    watching.add(one(2))
    for version in range(2, 5):
        await watching.move(one(1), version)
        await watching.move(one(2), version)
        await watching.ear.hears(one(2), version)


async def test_moves_are_heard_again_after_the_store_was_restarted(tmp_path: Path) -> None:
    with redis_server(_redis_of_the_system(), tmp_path) as url:
        port = url.rpartition(":")[2].partition("/")[0]
        client = connect_redis(url)
        watching = Watching(client)
        watching.add(one(1))
        await watching.ear.hears(one(1), 1)
        await client.shutdown(nosave=True)
        await eventually(lambda: asyncio.sleep(0, watching.watch._away), bool)
        home = tmp_path / "again"
        home.mkdir()
        with redis_server(_redis_of_the_system(), home, port=int(port)):
            watching.shelf.versions[one(1)] = 2
            await watching.ear.hears(one(1), 2)
            await watching.move(one(1), 3)
            await watching.ear.hears(one(1), 3)
            await watching.watch.close()
            await client.aclose()
