"""Who comes, and what they are told: noted in memory, and written to the store once a second.

What never becomes an event leaves no other trace: visits, refusals. Nobody waits for it to be written, and
nothing fails with it; while the store is away what is kept is bounded, and the rest forgotten. What a process
has noted and not written dies with it. Of people, only fingerprints are kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from hashlib import blake2b
from zlib import crc32

import structlog
from aiohttp import web

from gateway.auth import Authenticator
from gateway.metrics import VISITS
from gateway.problems import Problem
from reservation.clock import StoreClock
from reservation.outcomes import Fault
from reservation.tasks import end
from reservation.traffic import Fingerprint, Minute, Notes, TrafficLog, minute_of

VISIT, QUOTED, WAITLISTED, REPLAYED = "visit", "quoted", "waitlisted", "replayed"
"""What is counted besides the outcomes of reservation requests."""
WRITE_SECONDS = 1.0
STOP_SECONDS_MAX = 2.0
PEOPLE_MAX = 500_000
"""That are kept at a time, all campaigns together. Then who comes is forgotten."""
MINUTES_MAX = 100_000
"""Counts that are kept at a time, of all campaigns and minutes together."""
_DIGEST_BYTES = 8
_log = structlog.get_logger(__name__)


class Traffic:
    """What this process has seen since it last wrote it down."""

    def __init__(self, log: TrafficLog, clock: StoreClock, key: bytes) -> None:
        """`key` is the deployment's: all its processes make the same fingerprint of the same person."""
        self._log = log
        self._clock = clock
        self._key = key
        self._seed = crc32(key)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._counting_since_ms = clock.now_ms()
        self._notes: defaultdict[str, Notes] = defaultdict(Notes)
        self._people = 0

    def count(self, campaign: str, what: str, times: int = 1) -> None:
        """It has happened so often. `campaign` is one that there is: a scanner makes no series."""
        self._counts[campaign, what] += times

    def visited(self, campaign: str, person: str) -> None:
        """Somebody has looked at the campaign: a user, or what is to be known of who does not say."""
        self.count(campaign, VISIT)
        VISITS.labels(campaign).inc()
        # Addresses are among these, and there are not so many that a checksum would hide them.
        named = person.encode(errors="surrogatepass")  # headers may be anything
        self._keep(
            self._notes[campaign].visitors,
            [blake2b(named, digest_size=_DIGEST_BYTES, key=self._key).digest()],
        )

    def asked(self, campaign: str, outcome: str, users: list[str]) -> None:
        """So many have asked for a reservation and been told this: who asked twice is named twice."""
        self.count(campaign, outcome, len(users))
        if self._people < PEOPLE_MAX:
            # A fifth of what a digest takes, for every request. One in 4 billion looks like another.
            seed = self._seed
            self._keep(self._notes[campaign].participants, [crc32(user.encode(), seed) for user in users])

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """While the application runs."""
        writing = asyncio.create_task(self._keep_writing())
        yield
        await end(writing)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self.write()

    async def write(self) -> None:
        """Write down what there is. What could not be is kept for the next time, as far as there is room."""
        self._close_interval()
        notes, self._notes, self._people = self._notes, defaultdict(Notes), 0
        await asyncio.gather(*(self._write(campaign, found) for campaign, found in notes.items() if found))

    async def _write(self, campaign: str, found: Notes) -> None:
        left = await self._log.add(campaign, found, self._clock.now_ms())
        if left:
            kept = self._notes[campaign]
            kept.counts.update(left.counts)
            self._keep(kept.visitors, left.visitors)
            self._keep(kept.participants, left.participants)

    async def _keep_writing(self) -> None:
        while True:
            # On the second: so the minute ends where a minute ends.
            await asyncio.sleep(WRITE_SECONDS - self._clock.now_ms() / 1000 % WRITE_SECONDS)
            try:
                await self.write()
            except Exception:  # a defect of ours, and no reason to count no more
                _log.exception("traffic_not_written")

    def _close_interval(self) -> None:
        """What was counted belongs to the minute in which counting began."""
        minute = minute_of(self._counting_since_ms)
        self._counting_since_ms = self._clock.now_ms()
        counted, self._counts = self._counts, Counter()
        room = MINUTES_MAX - sum(len(notes.counts) for notes in self._notes.values())
        for (campaign, what), times in counted.items():
            counts, name = self._notes[campaign].counts, Minute(minute, what)
            if name in counts or room > 0:
                room -= name not in counts
                counts[name] += times

    def _keep(self, to: set[Fingerprint], people: Iterable[Fingerprint]) -> None:
        if self._people < PEOPLE_MAX:
            before = len(to)
            to.update(people)
            self._people += len(to) - before


class Visits:
    """Notes who looks at a campaign, on the way to answering them."""

    def __init__(self, traffic: Traffic, authenticator: Authenticator) -> None:
        self._traffic = traffic
        self._authenticator = authenticator

    async def note(self, request: web.Request, campaign: str) -> None:
        """A service is no visitor, and whoever only asks for headers has not looked."""
        if request.method != "GET" or self._authenticator.is_service(request):
            return
        user = None
        with suppress(Problem, Fault):  # whoever says who they are wrongly may look, as anybody may
            user = await self._authenticator.anyone(request)
        self._traffic.visited(campaign, _stranger(request) if user is None else user.id)


def _stranger(request: web.Request) -> str:
    """What is to be known of who does not say who they are: address and program. Not a user's id: no such
    id has a line break in it."""
    # Believed, since nothing hangs on it: behind a proxy everybody would have its address.
    address = request.headers.get("X-Forwarded-For") or request.remote
    return f"{address}\n{request.headers.get('User-Agent', '')}"
