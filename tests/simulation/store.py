"""A Redis that is made up: the model, its outbox, and the log of commands that it comes back from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson

from reservation.acknowledged import Acknowledged
from reservation.envelope import Envelope
from reservation.fence import Run
from reservation.ids import ReservationId
from reservation.kernel import (
    Asking,
    Changes,
    Configured,
    Miscount,
    Move,
    Moved,
    Place,
    Placed,
    Ranking,
    Restored,
    Snapshot,
    Standing,
    StoredCampaign,
    StoredOrder,
    Terms,
)
from reservation.model import ModelEvent, ModelStore
from reservation.outbox import IDLE_MS_MIN, Entry
from reservation.outcomes import AdjustOutcome, GrantOutcome, RestateOutcome, StoreUnavailable
from reservation.record import MadeOn, Record, Reservation
from reservation.steps import Event
from settlement.dead_letters import DeadLetter
from tests.simulation.wire import Process, Server, Wire, now

T = TypeVar("T")
SYNC_SECONDS = 1.0
"""How much `appendfsync everysec` may lose."""
STREAM = "outbox"


class Pending(NamedTuple):
    """Who has an entry in hand, and since when."""

    consumer: str
    since_ms: int


class Memory:
    """What a Redis process has in its memory: all of it follows from its commands and their times."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.model = ModelStore(clock)
        self.stream: dict[int, Envelope] = {}
        """The outbox: entries by number."""
        self.group: dict[int, Pending] | None = None
        """The consumer group's pending entries; None while there is no group."""
        self.read_to = 0
        self.added = 0
        self.dead: dict[int, DeadLetter] = {}

    # What follows is commands. Each is one step.

    def script(self, name: str, *given: Any, **named: Any) -> Any:
        """One run of a script: what it has put into the outbox is there in the same step."""
        result = now(getattr(self.model, name)(*given, **named))
        for event in self.model.outbox:
            self.add(self._envelope(event, given))
        self.model.outbox.clear()
        return result

    def add(self, envelope: Envelope) -> None:
        self.added += 1
        self.stream[self.added] = envelope

    def create_group(self) -> None:
        if self.group is None:
            self.group = {}

    def read(self, consumer: str, limit: int) -> list[Entry] | None:
        """Entries that nobody has read; None where there is no group."""
        if self.group is None:
            return None
        found = [number for number in self.stream if number > self.read_to][:limit]
        for number in found:
            self.group[number] = Pending(consumer, self.clock())
            self.read_to = number
        return [self._entry(number) for number in found]

    def claim(self, consumer: str, limit: int) -> list[Entry]:
        """Entries that another has had in hand for too long."""
        if self.group is None:
            raise StoreUnavailable("NOGROUP")
        until = self.clock() - IDLE_MS_MIN
        found = [number for number, one in self.group.items() if one.since_ms <= until][:limit]
        for number in found:
            self.group[number] = Pending(consumer, self.clock())
        return [self._entry(number) for number in found if number in self.stream]

    def forget(self, numbers: Sequence[int]) -> int:
        forgotten = 0
        for number in numbers:
            (self.group or {}).pop(number, None)
            forgotten += self.stream.pop(number, None) is not None
        return forgotten

    def put_dead(self, envelope: Envelope, reason: str) -> None:
        self.added += 1
        self.dead[self.added] = DeadLetter(envelope, reason)

    def replay_dead(self, limit: int) -> int:
        numbers = list(self.dead)[:limit]
        for number in numbers:
            self.add(self.dead.pop(number).envelope)
        return len(numbers)

    def _entry(self, number: int) -> Entry:
        return Entry(STREAM, str(number).encode(), self.stream[number])

    def _envelope(self, event: ModelEvent, given: tuple[Any, ...]) -> Envelope:
        """As outbox.open_entry makes it of what the script has written."""
        if event.type == "campaign_changed":
            stored = now(self.model.campaign(event.id))
            assert stored is not None
            return {
                "type": event.type,
                "id": event.id,
                "revision": stored.revision,
                "status": stored.status,
                "document": orjson.loads(stored.document),
                "at": stored.changed_at_ms,
            }
        if event.type == "main_order_changed":
            order = now(self.model.order(event.id))
            assert order is not None
            body = orjson.loads(order.body)
            return {
                "type": event.type,
                "id": event.id,
                "version": order.version,
                "body": body,
                "at": self.clock(),
            }
        one = event.reservation
        assert one is not None
        data = orjson.loads(event.data)
        if event.type in (Event.RESERVED, Event.OFFERED):
            terms: Terms = given[0]
            flat = [part for claim in one.claims for part in claim]
            made_on = MadeOn(
                one.sku,
                one.quantity,
                one.state,
                flat,
                terms.hold_ms,
                terms.fingerprint,
                terms.facts.decode(),
            )
            return {
                "type": str(event.type),
                "campaign": one.id.campaign,
                "at": one.created_at_ms,
                "terms": made_on._asdict(),
                "who": [one.id.digest, one.user],
                "data": data,
            }
        packed = given[0].facts if isinstance(given[0], Move) else one.facts.pack()
        record = self._record(one, packed.decode())._asdict()
        return {"type": str(event.type), "id": event.id, "record": record, "data": data}

    def _record(self, one: Reservation, facts: str) -> Record:
        _, fingerprint = self.model._campaigns[one.id.campaign].reservations[one.id.digest]
        return Record(
            one.state,
            one.version,
            one.user,
            one.sku,
            one.quantity,
            one.claims,
            one.created_at_ms,
            one.updated_at_ms,
            one.deadline_ms,
            fingerprint,
            facts,
        )


class Command(NamedTuple):
    """A command that writes, as the log has it."""

    at_ms: int
    name: str
    given: tuple[Any, ...]
    named: dict[str, Any]


class StoreServer(Server):
    """Redis. It comes back from its log of commands: from all of it, or from what the disk has of it."""

    fenced_when_lost = True
    """Whether somebody who has seen more finds out what was lost before others come: reservation/fence.py."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__("store", StoreUnavailable)
        self._clock = clock
        self._at_ms: int | None = None
        self.log: list[Command] = []
        self.memory = self._empty()
        self.told: list[Callable[[], None]] = []
        """Called when there is something new in the outbox."""

    def _empty(self) -> Memory:
        return Memory(lambda: self._clock() if self._at_ms is None else self._at_ms)

    def write(self, name: str, *given: Any, **named: Any) -> Any:
        """Run a command, and log it."""
        self.log.append(Command(self._clock(), name, given, named))
        added = self.memory.added
        result = self._run(name, given, named)
        if self.memory.added > added:
            waiting, self.told = self.told, []
            for tell in waiting:
                tell()
        return result

    def _run(self, name: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        own: Callable[..., Any] | None = getattr(self.memory, name, None)
        return own(*given, **named) if own else self.memory.script(name, *given, **named)

    def lose(self, since_ms: int) -> None:
        """Come back with what had been written before, as if nothing had happened since."""
        kept = [command for command in self.log if command.at_ms < since_ms]
        self.log, self.memory = kept, self._empty()
        for at_ms, name, given, named in kept:
            self._at_ms = at_ms
            self._run(name, given, named)
        self._at_ms = None
        if self.fenced_when_lost:
            self.write("fence", "it has lost something")


class StoreClient:
    """kernel.Store, as one process reaches it."""

    def __init__(self, wire: Wire, process: Process, server: StoreServer) -> None:
        self._wire = wire
        self._process = process
        self._server = server

    def wait(self) -> float:
        return 0.0

    async def _write(self, name: str, *given: Any, **named: Any) -> Any:
        step = lambda: self._server.write(name, *given, **named)  # noqa: E731
        return await self._wire.call(self._process, self._server, step)

    async def _look(self, ask: Callable[[ModelStore], Coroutine[Any, Any, T]]) -> T:
        step = lambda: now(ask(self._server.memory.model))  # noqa: E731
        return await self._wire.call(self._process, self._server, step)

    async def now_ms(self) -> int:
        return await self._look(lambda model: model.now_ms())

    async def configure(
        self,
        campaign: str,
        revision: int,
        status: str,
        document: bytes,
        caps: Mapping[str, int],
        ends_at_ms: int,
        above: int = 0,
    ) -> Configured:
        found: Configured = await self._write(
            "configure", campaign, revision, status, document, caps, ends_at_ms, above
        )
        return found

    async def campaign(self, campaign: str) -> StoredCampaign | None:
        return await self._look(lambda model: model.campaign(campaign))

    async def changes(self, cursor: tuple[int, ...]) -> Changes:
        return await self._look(lambda model: model.changes(cursor))

    def ask(self, terms: Terms, digest: str, user: str, asking: Asking) -> None:
        raise NotImplementedError("nobody in the simulation is on the fast lane")

    async def reserve(self, terms: Terms, digest: str, user: str) -> Moved:
        found: Moved = await self._write("reserve", terms, digest, user)
        return found

    async def move(self, move: Move) -> Moved:
        found: Moved = await self._write("move", move)
        return found

    async def restore(self, reservation_id: ReservationId, record: Record) -> Restored:
        found: Restored = await self._write("restore", reservation_id, record)
        return found

    async def adjust(self, campaign: str, adjusted: int, miscounts: Sequence[Miscount]) -> AdjustOutcome:
        found: AdjustOutcome = await self._write("adjust", campaign, adjusted, miscounts)
        return found

    async def confirm(self, campaign: str) -> None:
        """There are no replicas."""

    async def confirm_order(self, order_id: str) -> None:
        """There are no replicas."""

    async def restate(self, reservation_id: ReservationId, event: str) -> RestateOutcome:
        found: RestateOutcome = await self._write("restate", reservation_id, event)
        return found

    async def runs(self) -> Sequence[Run]:
        return []

    async def fenced(self) -> str:
        return await self._look(lambda model: model.fenced())

    async def fence(self, reason: str) -> None:
        await self._write("fence", reason)

    async def missed(self) -> list[Acknowledged]:
        return await self._look(lambda model: model.missed())

    async def lift(self) -> None:
        await self._write("lift")

    async def reservation(self, reservation_id: ReservationId) -> Reservation | None:
        return await self._look(lambda model: model.reservation(reservation_id))

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Reservation | None]:
        return await self._look(lambda model: model.reservations(ids))

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        return await self._look(lambda model: model.reservation_ids_of(user))

    async def standing(self, campaign: str, counters: Sequence[str]) -> Standing:
        return await self._look(lambda model: model.standing(campaign, counters))

    async def due(self, limit: int) -> list[ReservationId]:
        return await self._look(lambda model: model.due(limit))

    async def scan(self, campaign: str, cursor: int) -> tuple[int, list[Reservation]]:
        return await self._look(lambda model: model.scan(campaign, cursor))

    async def snapshot(self, campaign: str) -> Snapshot | None:
        return await self._look(lambda model: model.snapshot(campaign))

    async def take_place(self, terms: Terms, user: str, details: bytes) -> Placed:
        found: Placed = await self._write("take_place", terms, user, details)
        return found

    async def leave_place(self, campaign: str, sku: str, user: str) -> bool:
        found: bool = await self._write("leave_place", campaign, sku, user)
        return found

    async def places(self, campaign: str, user: str, skus: Sequence[str]) -> dict[str, tuple[int, Place]]:
        return await self._look(lambda model: model.places(campaign, user, skus))

    async def queues(self) -> list[tuple[str, str]]:
        return await self._look(lambda model: model.queues())

    async def queue(self, campaign: str, sku: str, limit: int) -> list[Place]:
        return await self._look(lambda model: model.queue(campaign, sku, limit))

    async def ranking(self, campaign: str, user: str | None, limit: int) -> Ranking:
        found: Ranking = await self._write("ranking", campaign, user, limit)
        return found

    async def order(self, order_id: str) -> StoredOrder | None:
        return await self._look(lambda model: model.order(order_id))

    async def order_ids(self) -> AsyncIterator[list[str]]:
        yield await self._look(_order_ids)

    async def record_order(
        self,
        order_id: str,
        version: int,
        body: bytes,
        *,
        unfinished: bool | None,
        event: bool,
        above: int = 0,
    ) -> bool:
        found: bool = await self._write(
            "record_order", order_id, version, body, unfinished=unfinished, event=event, above=above
        )
        return found

    async def unfinished_orders(self) -> list[str]:
        return await self._look(lambda model: model.unfinished_orders())

    async def grant(
        self, campaign: str, revision: int, order_id: str, version: int, caps: Mapping[str, int]
    ) -> GrantOutcome:
        found: GrantOutcome = await self._write("grant", campaign, revision, order_id, version, caps)
        return found


async def _order_ids(model: ModelStore) -> list[str]:
    return [one async for some in model.order_ids() for one in some]
