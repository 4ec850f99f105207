"""One suite over the book in PostgreSQL and the one that the simulation has made up: side by side."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from reservation.envelope import Envelope
from reservation.ids import ReservationId
from settlement.book import Book
from tests.contract.instant import instant_wire, process
from tests.simulation.book import BookServer, MemoryBook
from tests.simulation.store import Memory
from tests.simulation.world import live

SEEDS = (3, 5, 14)
"""A presale, a flash sale and a trade-in, each with refunds or late payments in it."""


@dataclass
class BookBench:
    book: Book | MemoryBook


@pytest.fixture(params=["memory", "postgres"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[BookBench]:
    if request.param == "memory":
        yield BookBench(memory_book())
        return
    book = Book(request.getfixturevalue("postgres_dsn"))
    await book.open()
    yield BookBench(book)
    await book.close()


def memory_book() -> MemoryBook:
    wire = instant_wire()
    return MemoryBook(wire, process(wire), BookServer(lambda: 0.0, random.Random(1)))


def events_of(seed: int) -> list[Envelope]:
    """Everything that a life has written into the outbox, in order."""
    found: list[Envelope] = []
    add = Memory.add

    def noted(self: Memory, envelope: Envelope) -> None:
        found.append(envelope)
        add(self, envelope)

    with patch.object(Memory, "add", noted):
        live(seed)
    return found


def ids_in(envelopes: list[Envelope]) -> list[ReservationId]:
    names = [f"{one['campaign']}.{one['who'][0]}" if "who" in one else one["id"] for one in envelopes]
    return [found for name in dict.fromkeys(names) if (found := ReservationId.parse(name)) is not None]


async def said_by(book: Book | MemoryBook, envelopes: list[Envelope]) -> dict[str, Any]:
    """Everything that a book can be asked."""
    ids = ids_in(envelopes)
    campaigns = sorted({one.campaign for one in ids})
    refunds = await book.refunds_to_ask_for(1_000)
    return {
        "campaigns": [await book.campaign(name) for name in campaigns],
        "remembers": [await book.remembers(name) for name in [*campaigns, "nobody"]],
        "reservations": [page for name in campaigns async for page in book.reservations(name)],
        "versions": await book.versions(ids),
        "main orders": [page async for page in book.main_orders(0)],
        "refunds": sorted(refunds),
        "asked just now": await book.refunds_to_ask_for(1_000),
        "own": sorted(map(str, await book.reservation_ids_of("user-1"))),
    }


@pytest.mark.parametrize("seed", SEEDS)
async def test_both_books_come_to_the_same_whatever_the_order(seed: int, bench: BookBench) -> None:
    events = events_of(seed)
    assert ids_in(events)
    plain = memory_book()
    await plain.settle(events)
    dice = random.Random(seed)
    shuffled = events + dice.choices(events, k=10)
    dice.shuffle(shuffled)
    while shuffled:
        size = dice.randint(1, 6)
        await bench.book.settle(shuffled[:size])
        del shuffled[:size]
    assert await said_by(bench.book, events) == await said_by(plain, events)


async def test_a_history_with_a_hole_is_not_in_the_book(bench: BookBench) -> None:
    """A store that was lost may have taken an event with it whose successor had been settled."""
    made = next(found for found in map(moved_twice, map(events_of, SEEDS)) if found is not None)
    first, second, third = made
    (one,) = ids_in([third])
    await bench.book.settle([first, third])
    assert await bench.book.versions([one]) == {}
    await bench.book.settle([third | {"type": "restated"}])
    assert await bench.book.versions([one]) == {one: 3}
    await bench.book.settle([second])
    assert await bench.book.versions([one]) == {one: 3}


def moved_twice(events: list[Envelope]) -> tuple[Envelope, Envelope, Envelope] | None:
    by_id: dict[str, dict[int, Envelope]] = {}
    for one in events:
        name = f"{one['campaign']}.{one['who'][0]}" if "who" in one else one["id"]
        version: Callable[[], int] = lambda: one["record"]["version"] if "record" in one else 1  # noqa: B023, E731
        by_id.setdefault(name, {})[version()] = one
    for found in by_id.values():
        if {1, 2, 3} <= found.keys() and "who" in found[1]:
            return found[1], found[2], found[3]
    return None
