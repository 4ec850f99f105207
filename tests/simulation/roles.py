"""The roles, wired as doorbuster/bootstrap.py wires them, over what is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from reservation.administration import Administration
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.desk import Desk
from reservation.order_desk import OrderDesk
from reservation.outcomes import Fault
from reservation.waitlist import Waitlist
from settlement.book_witness import BookWitness
from settlement.patrol import Patrol
from settlement.reconcile import Reconciler
from settlement.refunds import Refunder
from settlement.relay import Relay
from settlement.source import OutboxSource, Source
from settlement.sweeper import Sweeper, again
from settlement.worker import Worker
from tests.simulation.book import BookServer, MemoryBook
from tests.simulation.broker import BrokerServer, MemoryBroker, MemorySource
from tests.simulation.outbox import MemoryDeadLetters, MemoryOutbox
from tests.simulation.provider import Provider, ProviderClient
from tests.simulation.store import StoreClient, StoreServer
from tests.simulation.wire import Process, Wire

LOOK_SECONDS = 1.5
"""Between two looks of a sweeper, or of a catalog, on average."""


class Servers:
    """What the roles are connected to."""

    def __init__(self, wire: Wire, store: StoreServer, broker: BrokerServer | None, book: BookServer) -> None:
        self.wire = wire
        self.store = store
        self.broker = broker
        self.book = book
        self.provider: Provider
        self.has_main_orders = False


class Role:
    """A process that is started again when it was killed."""

    def __init__(self, servers: Servers, name: str) -> None:
        self.servers = servers
        self.wire = servers.wire
        self.name = name
        self.lives = 0
        self.process = Process(self.wire.loop, name)
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.process = Process(self.wire.loop, f"{self.name}.{self.lives}")
        for coroutine in self.build():
            self.process.run(coroutine)

    def build(self) -> list[Coroutine[Any, Any, None]]:
        """Make its parts; what it does until it dies."""
        raise NotImplementedError

    def kill(self) -> None:
        self.process.kill()

    def in_hand(self) -> int:
        """Events that it has taken and not passed on yet."""
        return 0

    async def _follow(self, catalog: Catalog) -> None:
        while True:
            with suppress(Fault):
                await catalog.refresh()
            await asyncio.sleep(self._look_seconds())

    def _again(self, step: Callable[[], Awaitable[int]]) -> Coroutine[Any, Any, None]:
        return again(step, self._look_seconds())

    def _look_seconds(self) -> float:
        """When something is looked at is for the seed to say."""
        return LOOK_SECONDS * (0.1 + 1.8 * self.wire.dice.random())


class Gateway(Role):
    """What answers clients, behind the routes."""

    def build(self) -> list[Coroutine[Any, Any, None]]:
        store = StoreClient(self.wire, self.process, self.servers.store)
        book = MemoryBook(self.wire, self.process, self.servers.book)
        clock = StoreClock()
        catalog = Catalog(store, clock)
        self.desk = Desk(store, catalog, clock, book)
        self.waitlist = Waitlist(store, catalog, clock, self.desk)
        self.orders = OrderDesk(store, catalog, self.desk)
        self.administration = Administration(store, catalog, book)
        return [self._follow(catalog)]


class SweeperRole(Role):
    def build(self) -> list[Coroutine[Any, Any, None]]:
        store = StoreClient(self.wire, self.process, self.servers.store)
        clock = StoreClock()
        catalog = Catalog(store, clock)
        book = MemoryBook(self.wire, self.process, self.servers.book)
        desk = Desk(store, catalog, clock, book)
        waitlist, orders = Waitlist(store, catalog, clock, desk), OrderDesk(store, catalog, desk)
        witness, patrol = BookWitness(store, book), Patrol(Reconciler(store, book, counts=False), catalog.all)
        sweeper = Sweeper(store, catalog, desk, waitlist, orders, witness, patrol)
        steps = [sweeper.sweep, sweeper.serve]
        if self.servers.has_main_orders:  # looking for what there cannot be takes time too
            steps.append(sweeper.finish)
        return [self._follow(catalog), *map(self._again, [*steps, sweeper.reschedule])]


class RelayRole(Role):
    def build(self) -> list[Coroutine[Any, Any, None]]:
        assert self.servers.broker is not None
        outbox = MemoryOutbox(self.wire, self.process, self.servers.store)
        relay = self.relay = Relay(outbox, MemoryBroker(self.wire, self.process, self.servers.broker))

        async def work() -> None:
            await relay.open()
            await relay.run()

        return [work()]

    def in_hand(self) -> int:
        return 0 if self.process.is_dead else self.relay.in_hand.events


class WorkerRole(Role):
    source: Source

    def build(self) -> list[Coroutine[Any, Any, None]]:
        store, broker = self.servers.store, self.servers.broker
        if broker is not None:
            self.source = MemorySource(self.wire, self.process, broker)
        else:
            letters = MemoryDeadLetters(self.wire, self.process, store)
            self.source = OutboxSource(MemoryOutbox(self.wire, self.process, store), letters)
        book = MemoryBook(self.wire, self.process, self.servers.book)
        worker = self.worker = Worker(self.source, book)
        refunder = Refunder(book, ProviderClient(self.wire, self.process, self.servers.provider))

        async def work() -> None:
            await worker.open()
            await worker.run()

        return [work(), refunder.run()]

    def in_hand(self) -> int:
        return 0 if self.process.is_dead else self.worker.in_hand.events

    def kill(self) -> None:
        super().kill()
        if isinstance(self.source, MemorySource):
            self.source.lose_channel()


class Operator(Role):
    """Who runs `doorbuster` on the command line."""

    def build(self) -> list[Coroutine[Any, Any, None]]:
        store = StoreClient(self.wire, self.process, self.servers.store)
        book = MemoryBook(self.wire, self.process, self.servers.book)
        self.administration = Administration(store, Catalog(store, StoreClock()), book)
        self.reconciler = Reconciler(store, book)
        self.dead_letters = (
            MemorySource(self.wire, self.process, self.servers.broker).dead_letters
            if self.servers.broker is not None
            else MemoryDeadLetters(self.wire, self.process, self.servers.store)
        )
        return []
