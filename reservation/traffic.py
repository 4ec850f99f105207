"""Traffic in the store: what never becomes an event, and is wanted when a campaign is over.

How often something happened is counted for each campaign and minute. Who came is kept as a HyperLogLog, which
tells how many different people there were, to about one in a hundred, and not who. What is added is lost with
the store's last second, as anything else; whoever copies it into the book never lowers what is there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from reservation.keys import ALL_SHARDS, campaign_keys
from reservation.outcomes import StoreUnavailable
from reservation.pipes import Pipes, together
from reservation.servers import Servers

HOURS_KEPT = 48
"""Of counts, in the store. A copy is made every few seconds."""
PEOPLE_KEPT_SECONDS = 180 * 24 * 3600
"""After somebody came last."""
_PEOPLE_AT_ONCE = 1_000
"""In one command: the store does nothing else meanwhile."""
_MINUTES_AN_HOUR = 60
_MINUTE_MS = 60_000


Fingerprint = bytes | int
"""Of a person: the same for the same, and no way back."""


class Minute(NamedTuple):
    """Something that is counted, in one minute."""

    minute: int
    """Since the epoch."""
    what: str


@dataclass(slots=True)
class Notes:
    """What is to be added to one campaign."""

    counts: Counter[Minute] = field(default_factory=Counter)
    visitors: set[Fingerprint] = field(default_factory=set)
    participants: set[Fingerprint] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.counts or self.visitors or self.participants)


class Noted(NamedTuple):
    """What was noted of a campaign: all that is known of who came, and the counts of some hours."""

    counts: Mapping[Minute, int]
    visitors: int
    participants: int


def minute_of(ms: int) -> int:
    return ms // _MINUTE_MS


class TrafficLog:
    """Traffic on Redis, on a connection that nobody else waits for."""

    def __init__(self, servers: Servers) -> None:
        self._pipes = Pipes(servers)

    async def add(self, campaign: str, notes: Notes, now_ms: int) -> Notes:
        """Write these down; what has to be written down again. Raises nothing of the store's.

        That is who came, since twice is harmless; and counts that were surely not made.
        """
        keys = campaign_keys(campaign)
        left = Notes()
        hours = Counter[int]()
        tasks = []
        for key, people, kept in (
            (keys.visitors, notes.visitors, left.visitors),
            (keys.participants, notes.participants, left.participants),
        ):
            tasks += [self._came(campaign, key, some, kept) for some in _in_parts(people)]
        for minute, times in notes.counts.items():
            hours[minute.minute // _MINUTES_AN_HOUR] += 1
            tasks.append(self._count(campaign, minute, times, left))
        for hour in hours:
            tasks.append(self._kept(campaign, keys.traffic(hour), HOURS_KEPT * 3600))
        await asyncio.gather(*tasks)
        # Last: whoever copies what it announces finds it.
        await self._try(campaign, "ZADD", keys.shard.noted, "GT", minute_of(now_ms), campaign)
        return left

    async def written(self, since: int) -> list[str]:
        """Campaigns of which something was written down in this minute or later. Raises StoreUnavailable."""
        found = await self._pipes.each(lambda shard: ("ZRANGEBYSCORE", shard.noted, since, "+inf"))
        return [name.decode() for names in found for name in names]

    async def forget(self, before: int) -> None:
        """Forget who was written of last before this minute. Raises StoreUnavailable."""
        await self._pipes.each(lambda shard: ("ZREMRANGEBYSCORE", shard.noted, "-inf", f"({before}"))

    async def now_ms(self) -> int:
        seconds, micros = await self._pipes.of(ALL_SHARDS[0]).call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def read(self, campaign: str, first_hour: int, last_hour: int) -> Noted:
        """What was noted of a campaign, with the counts of these hours. Raises StoreUnavailable."""
        keys = campaign_keys(campaign)
        pipe = self._pipes.of(keys.shard)
        visitors, participants, *hours = await together(
            [
                pipe.call("PFCOUNT", keys.visitors),
                pipe.call("PFCOUNT", keys.participants),
                *(pipe.call("HGETALL", keys.traffic(hour)) for hour in range(first_hour, last_hour + 1)),
            ]
        )
        counts = {}
        for found in hours:
            for name, times in _pairs(found):
                minute, _, what = name.decode().partition("/")
                counts[Minute(int(minute), what)] = int(times)
        return Noted(counts, int(visitors), int(participants))

    async def _came(self, campaign: str, key: str, people: list[Fingerprint], left: set[Fingerprint]) -> None:
        if not await self._try(campaign, "PFADD", key, *people):
            left.update(people)
            return
        await self._kept(campaign, key, PEOPLE_KEPT_SECONDS)

    async def _count(self, campaign: str, minute: Minute, times: int, left: Notes) -> None:
        key = campaign_keys(campaign).traffic(minute.minute // _MINUTES_AN_HOUR)
        try:
            await self._call(campaign, "HINCRBY", key, f"{minute.minute}/{minute.what}", times)
        except StoreUnavailable as fault:
            if not fault.sent:
                left.counts[minute] += times

    async def _kept(self, campaign: str, key: str, seconds: int) -> None:
        await self._try(campaign, "EXPIRE", key, seconds)

    async def _try(self, campaign: str, *command: Any) -> bool:
        try:
            await self._call(campaign, *command)
        except StoreUnavailable:
            return False
        return True

    async def _call(self, campaign: str, *command: Any) -> Any:
        return await self._pipes.of(campaign_keys(campaign).shard).call(*command)


def _in_parts(people: Collection[Fingerprint]) -> Iterator[list[Fingerprint]]:
    left = iter(people)
    while part := list(islice(left, _PEOPLE_AT_ONCE)):
        yield part


def _pairs(found: Any) -> Iterable[tuple[bytes, Any]]:
    """Names and numbers, in whichever of its protocols the store says them."""
    return found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
