"""What this process was last acknowledged: where the store loses it, nobody else has a list."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from reservation.ids import ReservationId
from reservation.keys import ShardKeys

REMEMBERED_MAX = 20_000
"""Reservations, each time they are made or moved. What goes with a store is a second's, and rarely more."""


class Acknowledged(NamedTuple):
    """A reservation that somebody was told of, in this version."""

    id: ReservationId
    version: int

    def __str__(self) -> str:
        return f"{self.id}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> Acknowledged | None:
        name, _, version = text.rpartition("/")
        found = ReservationId.parse(name)
        return cls(found, int(version)) if found is not None and version.isdecimal() else None


class _Entry(NamedTuple):
    """One of the outbox, and what it says."""

    prefix: str
    id: tuple[int, int]
    campaign: str
    digests: Sequence[str]
    version: int

    def came_after(self, shard: ShardKeys, base: tuple[int, int]) -> bool:
        return self.prefix == shard.prefix and self.id > base


class Memory:
    """Of entries, the newest."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._remembered = 0

    def note(
        self, shard: ShardKeys, entry_id: bytes, campaign: str, digests: Sequence[str], version: int
    ) -> None:
        self._entries.append(_Entry(shard.prefix, read_entry_id(entry_id), campaign, digests, version))
        self._remembered += len(digests)
        while self._remembered > REMEMBERED_MAX:
            self._remembered -= len(self._entries.popleft().digests)

    def since(self, shard: ShardKeys, base: tuple[int, int]) -> list[Acknowledged]:
        """What came after this entry of a shard's outbox, as far as it is remembered."""
        return [
            Acknowledged(ReservationId(entry.campaign, digest), entry.version)
            for entry in self._entries
            if entry.came_after(shard, base)
            for digest in entry.digests
        ]

    def forget(self, shard: ShardKeys, base: tuple[int, int]) -> None:
        """The same."""
        self._entries = deque(entry for entry in self._entries if not entry.came_after(shard, base))
        self._remembered = sum(len(entry.digests) for entry in self._entries)


def read_entry_id(entry_id: bytes) -> tuple[int, int]:
    """Of a stream: ms, and a number within."""
    ms, _, number = entry_id.partition(b"-")
    return int(ms), int(number)
