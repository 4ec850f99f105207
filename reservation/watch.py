"""Moves of the reservations that somebody watches, as they happen in any process.

The move script publishes every move of an existing reservation. One connection a process subscribes to
those that are watched here, and only while any is. What it hears is only that something moved: the
reservation is then read, so a message that was lost with a connection is made up for by reading again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.asyncio.client import PubSub

from reservation.ids import ReservationId
from reservation.kernel import Store
from reservation.outcomes import Fault, StoreUnavailable
from reservation.pipe import unable
from reservation.record import Reservation
from reservation.servers import Servers, any_client
from reservation.tasks import end

Tell = Callable[[Reservation], Awaitable[None]]

CHANNEL = "doorbuster:moved:"
"""And a reservation's id: the channel that lua/move.lua publishes its moves on."""
BATCH_MAX = 64
"""Reservations that are read, and channels that are subscribed to, in one piece."""
AGAIN_SECONDS = 0.25
SILENCE_SECONDS = 5.0
"""After so long without a word the store is asked for one; after as long again it is taken to be away."""
_log = structlog.get_logger(__name__)


class Watch:
    """Tells of watched reservations whenever they have moved."""

    def __init__(self, servers: Servers, store: Store) -> None:
        self._servers = servers
        self._store = store
        self._tells: dict[ReservationId, Tell] = {}
        self._heard: set[ReservationId] = set()
        """Those whose channels are subscribed to."""
        self._asked: set[ReservationId] = set()
        """Those that were added or removed, and whose subscription may have to follow."""
        self._moved: set[ReservationId] = set()
        """Those to be read."""
        self._work = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._away = False

    def add(self, reservation_id: ReservationId, tell: Tell) -> None:
        """Tell of this reservation: once when it is listened to, and after every move from then on."""
        self._tells[reservation_id] = tell
        self._ask(reservation_id)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    def remove(self, reservation_id: ReservationId) -> None:
        """Tell of it no more."""
        del self._tells[reservation_id]
        self._ask(reservation_id)

    async def close(self) -> None:
        if self._running is not None:
            await end(self._running)

    def _ask(self, reservation_id: ReservationId) -> None:
        self._asked.add(reservation_id)
        self._work.set()

    async def _run(self) -> None:
        """Listen while anything is watched; a store that is away is asked again."""
        try:
            while self._tells:
                try:
                    await self._listen()
                except Exception as error:
                    if not self._away:
                        fault = isinstance(error, Fault) or unable(error)
                        log = _log.warning if fault else _log.exception
                        log("not_watching", error=f"{type(error).__name__}{f': {error}' if fault else ''}")
                    self._away = True
                    await asyncio.sleep(AGAIN_SECONDS)
        finally:
            self._running = None

    async def _listen(self) -> None:
        """On a new connection: subscribe to everything watched, then hear and tell."""
        self._heard.clear()
        self._moved.clear()
        self._asked = set(self._tells)
        pubsub = any_client(self._servers).pubsub()  # what is published on one node is heard on all
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._subscribe(pubsub)
            tasks = [asyncio.create_task(self._hear(pubsub)), asyncio.create_task(self._tell(pubsub))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(*tasks)
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Subscribe to what is watched, and to nothing else."""
        while self._asked:
            some = [self._asked.pop() for _ in range(min(BATCH_MAX, len(self._asked)))]
            new = {one for one in some if one in self._tells}
            gone = {one for one in some if one not in self._tells} & self._heard
            # Watched before, left and watched again in between: a move may have been told to nobody.
            self._moved |= new & self._heard
            new -= self._heard
            self._heard |= new
            self._heard -= gone
            if new:
                await pubsub.subscribe(*(f"{CHANNEL}{one}" for one in new))
            if gone:
                await pubsub.unsubscribe(*(f"{CHANNEL}{one}" for one in gone))

    async def _hear(self, pubsub: PubSub) -> None:
        """Note what moved, and what is listened to from now on: until then it may have moved too."""
        silent = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                if silent:
                    raise StoreUnavailable("the store has nothing to say")
                await pubsub.ping()
                silent = True
                continue
            silent = self._away = False
            if message["type"] in ("subscribe", "message"):
                moved = ReservationId.parse(message["channel"].decode().removeprefix(CHANNEL))
                if moved is not None:
                    self._moved.add(moved)
                    self._work.set()
            await asyncio.sleep(0)  # thousands may have come in one piece

    async def _tell(self, pubsub: PubSub) -> None:
        """Read what moved and tell of it, until nothing is watched any more."""
        while self._tells:
            await self._work.wait()
            self._work.clear()
            await self._subscribe(pubsub)
            while self._moved:
                some = [self._moved.pop() for _ in range(min(BATCH_MAX, len(self._moved)))]
                watched = [one for one in some if one in self._tells]
                for reservation in await self._store.reservations(watched) if watched else ():
                    # It may be watched no more, or not be there: a store that lost it has nothing to tell.
                    tell = self._tells.get(reservation.id) if reservation else None
                    if reservation is not None and tell is not None:
                        await self._tell_one(tell, reservation)

    @staticmethod
    async def _tell_one(tell: Tell, reservation: Reservation) -> None:
        try:
            await tell(reservation)
        except Fault:
            raise
        except Exception:  # a defect of its own: the others are told all the same
            _log.exception("not_told", reservation=str(reservation.id))
        await asyncio.sleep(0)
