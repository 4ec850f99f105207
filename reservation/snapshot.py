"""Taking a snapshot: all that Redis keeps of a campaign, as it was at one instant, read page by page.

A campaign of a million reservations cannot be read at once without holding everybody up for seconds. So while
it is read, scripts note in a trail what they change, and that is read again, until nothing is left of it.
See lua/snapshot.lua.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from reservation.ids import ReservationId
from reservation.kernel import RANKED, Snapshot
from reservation.keys import CampaignKeys
from reservation.outcomes import StoreUnavailable
from reservation.record import (
    KnownTerms,
    MadeOn,
    Record,
    Reservation,
    ShortRecord,
    own_counters,
    unpack_record,
)
from reservation.scripts import script

PAGE_COUNT = 500
"""About so many reservations are read at a time."""
CHANGED_MAX = 2_000
"""About so many that have changed are read again at a time: more than change in that time, at any rate."""
KEPT_MS = 30_000
"""For how long scripts go on to leave a trail, when the reader has gone."""
PAGES_UNTIL_LOOK = 20
"""After so many pages the trail is read, so that it stays short."""
TRIES_MAX = 3
"""How often it is begun: anew, where another server has answered, or counters were adjusted, meanwhile."""


@dataclass(slots=True)
class Pages:
    """A campaign as it is kept. Bytes are as Redis has them."""

    campaign: str
    position: bytes = b""
    """The entry of the trail that was read last."""
    adjusted: int = 0
    """How often its counters have been adjusted."""
    records: dict[bytes, bytes] = field(default_factory=dict)
    """By digest, packed."""
    own: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """By user: their own counters, by name with the user behind the @."""
    terms: dict[str, bytes | None] = field(default_factory=dict)
    """By name: what reservations were made on, packed; None until it was read. They never change."""
    used: Sequence[bytes] = ()
    caps: Sequence[bytes] = ()
    tally: Sequence[bytes] = ()
    ranking: Sequence[bytes] = ()
    """These are names and values in turn."""

    def note(self, records: Mapping[bytes, bytes]) -> list[str]:
        """Whose these are."""
        self.records.update(records)
        found = [unpack_record(packed) for packed in records.values()]
        for one in found:
            if isinstance(one, ShortRecord):
                self.terms.setdefault(one.terms)
        return list({one.user for one in found})

    def note_users(self, users: Iterable[tuple[bytes, bytes | None]]) -> None:
        for user, packed in users:
            name = user.decode()
            self.own[name] = own_counters(self.campaign, name, packed)


async def read_pages(client: Redis, campaign: str, keys: CampaignKeys) -> Pages | None:
    """All of a campaign at the instant at which this ends; None where there is none. Raises StoreUnavailable,
    and what redis-py raises."""
    for _ in range(TRIES_MAX):
        reading = _Reading(client, keys, Pages(campaign))
        if not await reading.look():
            return None
        await reading.scan()
        while not reading.over:
            await reading.look(complete=True)
        if not reading.failed:
            await reading.read_terms()
            return reading.pages
    raise StoreUnavailable(f"{campaign}: a snapshot was begun {TRIES_MAX} times in vain")


class _Reading:
    """One attempt."""

    def __init__(self, client: Redis, keys: CampaignKeys, pages: Pages) -> None:
        self._client: Any = client
        self._keys = keys
        self._script = script("snapshot")
        self._of: tuple[bytes, bytes] | None = None
        """How often it had been adjusted at the beginning, and the server process."""
        self.pages = pages
        self.over = False
        self.failed = False

    async def look(self, *, complete: bool = False) -> bool:
        """Read again what has changed; the rest too, once it is `complete` and nothing has. Whether there is
        such a campaign."""
        pages, names = self.pages, self._keys.for_snapshot
        args = (pages.position, int(complete), CHANGED_MAX, KEPT_MS)
        found: list[Any] = await self._client.eval(self._script.source, len(names), *names, *args)
        if len(found) < 2:
            self.over = self.failed = True
            return bool(found)
        pages.position, adjusted, run_id, changed, users = found[:5]
        self._of = self._of or (adjusted, run_id)
        if self._of != (adjusted, run_id):
            self.over = self.failed = True
            return True
        pages.adjusted = int(adjusted)
        pages.note(dict(zip(changed[::2], changed[1::2], strict=True)))
        pages.note_users(zip(users[::2], users[1::2], strict=True))
        if len(found) > 5:
            pages.used, pages.caps, pages.tally, pages.ranking = found[5:]
            self.over = True
        return True

    async def scan(self) -> None:
        """Read every page."""
        cursor, number = 0, 0
        some: dict[bytes, bytes]
        while not self.failed:
            cursor, some = await self._client.hscan(self._keys.reservations, cursor, count=PAGE_COUNT)
            users = self.pages.note(some)
            if users:
                owns = await self._client.hmget(self._keys.shard.users, users)
                self.pages.note_users(zip((user.encode() for user in users), owns, strict=True))
            number += 1
            if cursor == 0:
                return
            if number % PAGES_UNTIL_LOOK == 0:
                await self.look()

    async def read_terms(self) -> None:
        """What reservations were made on: often all on the same, in a trade-in each on its own."""
        names = list(self.pages.terms)
        for first in range(0, len(names), PAGE_COUNT):
            page = names[first : first + PAGE_COUNT]
            packed = await self._client.hmget(self._keys.terms, page)
            self.pages.terms.update(zip(page, packed, strict=True))


def opened(pages: Pages) -> Snapshot:
    """What pages say. A million reservations take seconds."""
    levels = _counts(pages.used)
    levels |= {f"{RANKED}{user.decode()}": int(float(score)) for user, score in _pairs(pages.ranking)}
    for own in pages.own.values():
        levels |= own
    known = {
        name: KnownTerms(MadeOn.unpack(packed)) for name, packed in pages.terms.items() if packed is not None
    }

    def reservation(digest: bytes, packed: bytes) -> Reservation:
        name, record = ReservationId(pages.campaign, digest.decode()), unpack_record(packed)
        if isinstance(record, Record):
            return Reservation.of(name, record)
        return known[record.terms].reservation(name, record.user, record.created_at)

    reservations = [reservation(*one) for one in pages.records.items()]
    return Snapshot(levels, _counts(pages.caps), _counts(pages.tally), reservations, pages.adjusted)


def _counts(flat: Sequence[bytes]) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in _pairs(flat)}


def _pairs(flat: Sequence[bytes]) -> zip[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
