"""What a process remembers of what it was acknowledged."""

from __future__ import annotations

import pytest

from reservation import acknowledged
from reservation.acknowledged import Acknowledged, Memory
from reservation.ids import ReservationId
from reservation.keys import shard_keys

HERE, THERE = shard_keys(1), shard_keys(2)
DIGESTS = [f"{number:016x}" for number in range(10)]


def one(number: int, version: int = 1) -> Acknowledged:
    return Acknowledged(ReservationId("sale", DIGESTS[number]), version)


def test_what_came_after_an_entry_of_its_shard_is_remembered() -> None:
    memory = Memory()
    memory.note(HERE, b"5-0", "sale", DIGESTS[:2], 1)
    memory.note(HERE, b"5-1", "sale", DIGESTS[2:4], 1)
    memory.note(THERE, b"9-0", "sale", DIGESTS[4:5], 1)
    memory.note(HERE, b"12-0", "sale", DIGESTS[:1], 2)
    assert memory.since(HERE, (5, 0)) == [one(2), one(3), one(0, 2)]
    assert memory.since(HERE, (0, 0)) == [one(0), one(1), one(2), one(3), one(0, 2)]
    assert memory.since(HERE, (12, 0)) == []


def test_what_was_left_for_others_is_not_told_again() -> None:
    memory = Memory()
    memory.note(HERE, b"5-0", "sale", DIGESTS[:1], 1)
    memory.note(THERE, b"6-0", "sale", DIGESTS[1:2], 1)
    memory.note(HERE, b"7-0", "sale", DIGESTS[2:3], 1)
    memory.forget(HERE, (5, 0))
    memory.note(HERE, b"9-0", "sale", DIGESTS[3:4], 1)
    assert memory.since(HERE, (0, 0)) == [one(0), one(3)]
    assert memory.since(THERE, (0, 0)) == [one(1)]


def test_the_newest_are_remembered_and_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged, "REMEMBERED_MAX", 5)
    memory = Memory()
    for number in range(4):
        memory.note(HERE, b"%d-0" % number, "sale", DIGESTS[2 * number : 2 * number + 2], 1)
    assert memory.since(HERE, (-1, 0)) == [one(number) for number in range(4, 8)]


@pytest.mark.parametrize("text", ["", "sale", "sale.x/1", f"sale.{DIGESTS[0]}", f"sale.{DIGESTS[0]}/x", "/1"])
def test_what_is_none_is_none(text: str) -> None:
    assert Acknowledged.parse(text) is None


def test_it_is_written_and_read() -> None:
    assert Acknowledged.parse(str(one(3, 7))) == one(3, 7)
