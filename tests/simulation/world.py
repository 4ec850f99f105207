"""A whole life: two of each role, shoppers, operators, a payment provider, and what breaks."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest.mock import patch

from reservation.administration import Action
from reservation.catalog import parse_campaign
from reservation.desk import Taken
from reservation.ids import PaymentId
from reservation.outcomes import Fault, Refusal
from reservation.paying import Notice
from reservation.record import LIVE, Reservation
from reservation.validation import Invalid
from settlement import refunds
from settlement.rabbit import DEAD, EVENTS, decode
from settlement.reconcile import Drift, Reconciliation
from tests.simulation.book import BookServer
from tests.simulation.broker import BrokerServer
from tests.simulation.checker import Checker
from tests.simulation.log import ClientLog
from tests.simulation.loop import START_SECONDS, VirtualLoop, run
from tests.simulation.plan import CALM_AT, CLOSES, QUIET_BY, Loss, Plan, plan_of
from tests.simulation.provider import Provider
from tests.simulation.roles import (
    Gateway,
    Operator,
    RelayRole,
    Role,
    Servers,
    SweeperRole,
    WorkerRole,
)
from tests.simulation.shopper import Shop, Shopper
from tests.simulation.store import SYNC_SECONDS, StoreServer
from tests.simulation.wire import CALM, Process, Trace, Wire

T = TypeVar("T")
_LOOK_SECONDS = 1.0
REFUNDER_PAUSE_SECONDS = 2.0
"""Longer than it is: looking for nothing takes most of a life otherwise."""


class Unknown(Fault):
    """There was no answer: whether it was done is not known."""


@dataclass
class Life:
    """What came of a seed."""

    seed: int
    trace: list[str]
    violations: list[str] = field(default_factory=list)
    calls: int = 0
    """Of servers."""
    reached: set[str] = field(default_factory=set)
    """What happened in it, for who wants to know whether the seeds reach everything."""


class World(Shop):
    """Everything there is in a life."""

    def __init__(self, loop: VirtualLoop, plan: Plan, dice: random.Random) -> None:
        self.plan = plan
        self.trace = Trace(loop)
        self.wire = Wire(loop, dice, CALM, self.trace)
        self.log = ClientLog()
        store = StoreServer(lambda: int((START_SECONDS + loop.time()) * 1000))
        broker = BrokerServer() if plan.has_broker else None
        self.servers = Servers(self.wire, store, broker, BookServer(loop.time, dice))
        self.provider = self.servers.provider = Provider(self.wire, self._notice)
        self.servers.has_main_orders = any(one["kind"] == "trade_in" for one in plan.documents)
        self.gateways = [Gateway(self.servers, f"gateway-{one}") for one in (1, 2)]
        self.roles: list[Role] = [
            *self.gateways,
            *(WorkerRole(self.servers, f"worker-{one}") for one in (1, 2)),
            *(SweeperRole(self.servers, f"sweeper-{one}") for one in (1, 2)),
            *(RelayRole(self.servers, f"relay-{one}") for one in (1, 2) if plan.has_broker),
        ]
        self.operator = Operator(self.servers, "operator")
        self.clients = Process(loop, "clients")
        self.checker = Checker(self.log, self.servers, self.provider)
        self._whole = asyncio.Event()
        """Set while the store has lost nothing that was not repaired."""
        if plan.loss is Loss.NOTHING:
            self._whole.set()
        self._busy = 0
        """Clients and operators that are not done yet."""

    async def live(self) -> None:
        """From the beginning until everything has drained, and is judged."""
        loop = self.wire.loop
        for document in self.plan.documents:
            await self.insist(lambda gateway: gateway.administration.put(parse_campaign(document)))  # noqa: B023
        self.wire.weather = self.plan.weather
        self.servers.book.deadlocks = self.plan.deadlocks
        if self.plan.refused:
            self.servers.book.refuses = lambda envelope: hash_of(envelope) % 7 == 0
        for user in self.plan.users:
            self._run(Shopper(self, user).live())
        self._run(self._merchant())
        for at, what in self.plan.breaks:
            self.clients.run(self._break(at, what))
        for at in self.plan.repairs_at:
            self._run(self._repair_at(at))
        if self.plan.loss is not Loss.NOTHING:
            self._run(self._lose())
        while loop.time() < CALM_AT:
            await asyncio.sleep(_LOOK_SECONDS)
            self.checker.look(self.trace)
        self._calm()
        while loop.time() < QUIET_BY:
            await asyncio.sleep(_LOOK_SECONDS)
            self.checker.look(self.trace)
            if self._is_quiet():
                break
            await self._tend()
        else:
            self.checker.complain("I8", f"not everything has drained: {self._left()}")
        self.checker.judge()

    def _run(self, coroutine: Any) -> None:
        self._busy += 1
        task = self.clients.run(coroutine)
        task.add_done_callback(lambda _: self._done())

    def _done(self) -> None:
        self._busy -= 1

    # Clients.

    async def ask(self, call: Callable[[Gateway], Awaitable[T]]) -> T:
        """Ask one of the gateways, once. Raises Unknown."""
        gateway = self.wire.dice.choice(self.gateways)
        if gateway.process.is_dead:
            await asyncio.sleep(0.05)
            raise Unknown("refused the connection")

        async def answered() -> T:
            return await call(gateway)

        task = gateway.process.start(answered())
        await asyncio.wait([task])
        if task.cancelled():
            raise Unknown("the connection is gone")
        error = task.exception()
        if isinstance(error, Fault):
            raise Unknown(str(error)) from error
        if self.wire.weather.lost_reply and self.wire.dice.random() < self.wire.weather.lost_reply:
            raise Unknown("the reply was lost")
        return task.result()

    async def insist(self, call: Callable[[Gateway], Awaitable[T]]) -> T:
        """Ask until there is an answer, as who has an idempotency key may."""
        while True:
            try:
                return await self.ask(call)
            except Unknown:
                await asyncio.sleep(0.1 + self.wire.dice.random() * 1.5)

    async def _notice(self, payment: PaymentId, notice: Notice) -> Taken:
        sent_at = self.wire.loop.time()
        taken, after = await self.ask(lambda gateway: gateway.desk.take_notice(payment, notice))
        self.trace("notice", notice.type, payment, taken, after.state if after else "")
        if after is not None and taken in (Taken.TAKEN, Taken.KNOWN):
            self.note(sent_at, after)
        return taken

    # Operators.

    async def _merchant(self) -> None:
        dice = self.wire.dice
        while self.wire.loop.time() < CLOSES:
            await asyncio.sleep(0.5 + dice.random() * 4)
            document = dice.choice(self.plan.documents)
            offer = dice.choice(document["offers"])
            if dice.random() < 0.7:
                delta = dice.choice((-2, -1, 1, 2))
                await self._restock(document["id"], offer["sku"], delta)
            else:
                for action in (Action.PAUSE, Action.RESUME):
                    await self.insist(lambda gateway: gateway.administration.act(document["id"], action))  # noqa: B023
                    self.trace("merchant", action, document["id"])
                    await asyncio.sleep(dice.random() * 2)

    async def _restock(self, campaign: str, sku: str, delta: int) -> None:
        try:
            done = await self.ask(lambda gateway: gateway.administration.restock(campaign, sku, delta))
        except (Fault, Invalid):
            return
        self.trace("merchant restocks", sku, delta, done.code if isinstance(done, Refusal) else "done")

    async def _repair_at(self, at: float) -> None:
        await asyncio.sleep(at)
        await self._whole.wait()  # before what is on its way has come there, nobody is to repair
        await self._repair()

    async def _repair(self) -> None:
        """doorbuster reconcile --repair, until it has gone through; then resume what it has paused."""
        names = [document["id"] for document in self.plan.documents]
        while True:
            try:
                found = await self.operator.reconciler.reconcile(names, repair=True, lift=True)
            except Fault:
                await asyncio.sleep(1)
                continue
            self._note_repair(found)
            if found.ok or not any(
                one.drift in _MAY_BE_MENDED for one in found.differences if not one.mended
            ):
                break
            await asyncio.sleep(1)
        for name in names:
            await self._resume(name)

    def _note_repair(self, found: Reconciliation) -> None:
        for one in found.differences:
            self.trace("reconcile", one.drift, one.id, "mended" if one.mended else one.detail)
            if not one.mended and one.drift in (Drift.RESERVATION_LOST, Drift.RESERVATION_BEHIND):
                self.checker.given_up.add(one.id)

    async def _resume(self, campaign: str) -> None:
        while True:
            try:
                await self.operator.administration.act(campaign, Action.RESUME)
                return
            except Fault:
                await asyncio.sleep(1)

    # What breaks.

    async def _break(self, at: float, what: str) -> None:
        dice = self.wire.dice
        await asyncio.sleep(at)
        seconds = dice.choice((0.05, 1.0, 5.0)) * dice.random()
        if what == "book and worker":  # while it waits for the book, it has something in hand
            self.clients.run(self._break(0.01 + seconds * dice.random(), "worker"))
            what = "book"
        if what in ("store", "broker", "book"):
            await self._outage(what, seconds)
            return
        roles = [role for role in self.roles if role.name.startswith(what)]
        if not roles:
            return
        role = dice.choice(roles)
        if role.process.is_dead:
            return
        self.trace("killed", role.name)
        role.kill()
        await asyncio.sleep(seconds)
        self.trace("started", role.name)
        role.start()

    async def _outage(self, what: str, seconds: float) -> None:
        servers = self.servers
        self.trace(what, "is away")
        if what == "broker":
            if servers.broker is None:
                return
            servers.broker.go_down()
            await asyncio.sleep(seconds)
            servers.broker.is_up = True
        else:
            server = servers.store if what == "store" else servers.book
            server.is_up = False
            await asyncio.sleep(seconds)
            server.is_up = True
        self.trace(what, "is back")

    async def _lose(self) -> None:
        """The store comes back without its last second, or without anything, and an operator does what
        docs/reliability.md says."""
        dice, store = self.wire.dice, self.servers.store
        await asyncio.sleep(self.plan.loss_at)
        everything = self.plan.loss is Loss.EVERYTHING
        now_ms = int((START_SECONDS + self.wire.loop.time()) * 1000)
        before = self._reservations()
        store.lose(0 if everything else now_ms - int(SYNC_SECONDS * 1000 * dice.random()))
        self.checker.lost(before, self._on_its_way(), self.wire.loop.time())
        self.trace("the store has lost", self.plan.loss)
        self._run(self._apply_again())
        await asyncio.sleep(1 + dice.random() * 6)
        still = 0.0
        while still <= self.wire.weather.slow_seconds_max:  # so long something may be between two processes
            await self._tend()
            await asyncio.sleep(0.5)
            still = still + 0.5 if self._has_settled() else 0.0
        if dice.random() < 0.5:
            document = dice.choice(self.plan.documents)
            self._run(self._restock_soon(document["id"], document["offers"][0]["sku"]))
        await self._repair()
        self._whole.set()
        self.trace("the store has been repaired")

    async def _apply_again(self) -> None:
        """A merchant finds a campaign gone, and applies its file once more."""
        await asyncio.sleep(self.wire.dice.random())
        for document in self.plan.documents:
            for _ in range(3):
                try:
                    await self.ask(lambda gateway: gateway.administration.put(parse_campaign(document)))  # noqa: B023
                except (Fault, Invalid):
                    self.trace("merchant could not apply", document["id"])
                    await asyncio.sleep(0.5)

    async def _restock_soon(self, campaign: str, sku: str) -> None:
        for _ in range(4):
            await self._restock(campaign, sku, -1)

    def _reservations(self) -> dict[str, Reservation]:
        campaigns = self.servers.store.memory.model._campaigns.values()
        return {str(one.id): one for found in campaigns for one, _ in found.reservations.values()}

    def _on_its_way(self) -> dict[str, int]:
        """The version in which what is left anywhere has a reservation, by id."""
        found = {name: one.version for name, one in self._reservations().items()}
        envelopes = list(self.servers.store.memory.stream.values())
        if self.servers.broker is not None:
            held = [one for some in self.servers.broker.unacknowledged.values() for one in some]
            for message in [*self.servers.broker.queues[EVENTS], *held]:
                envelopes += decode(message.body)
        known = [(name, row["version"]) for name, row in self.servers.book.orders.items()]
        for envelope in envelopes:
            if "who" in envelope:
                known += [(f"{envelope['campaign']}.{digest}", 1) for digest in envelope["who"][::2]]
            elif "record" in envelope:
                known.append((envelope["id"], envelope["record"]["version"]))
        for name, version in known:
            found[name] = max(found.get(name, 0), version)
        return found

    # The end.

    def _calm(self) -> None:
        self.trace("calm")
        self.wire.weather = CALM
        self.servers.book.deadlocks = 0.0
        self.servers.book.refuses = lambda envelope: False

    async def _tend(self) -> None:
        """What an operator does: see to the dead letters."""
        try:
            await self.operator.dead_letters.replay(100)
        except Fault:
            return

    def _has_settled(self) -> bool:
        in_hand = any(role.in_hand() for role in self.roles)
        return not (in_hand or self.servers.store.memory.stream or self._messages() or self._dead())

    def _messages(self) -> int:
        broker = self.servers.broker
        return (
            0
            if broker is None
            else len(broker.queues[EVENTS]) + sum(map(len, broker.unacknowledged.values()))
        )

    def _dead(self) -> int:
        broker = self.servers.broker
        return len(self.servers.store.memory.dead) + (len(broker.queues[DEAD]) if broker else 0)

    def _left(self) -> list[str]:
        """What is not over yet."""
        memory, book = self.servers.store.memory, self.servers.book
        campaigns = memory.model._campaigns.values()
        refunds = [row for row in book.refunds.values() if row["status"] == "pending"]
        live = [one for one in self._reservations().values() if one.state in LIVE]
        found = {
            "clients": self._busy,
            "notices": self.provider.telling,
            "entries": len(memory.stream),
            "messages": self._messages(),
            "dead letters": self._dead(),
            "live reservations": len(live),
            "lines": sum(map(len, (one.queues for one in campaigns))),
            "unfinished orders": len(memory.model._unfinished),
            "refunds": len(refunds),
        }
        return [f"{count} {name}" for name, count in found.items() if count]

    def _is_quiet(self) -> bool:
        return not self._left()


_MAY_BE_MENDED = frozenset({Drift.CAMPAIGN_LOST, Drift.CAMPAIGN_BEHIND, Drift.MAIN_ORDER_LOST})
"""If these were not, somebody was faster: look again."""


def hash_of(envelope: dict[str, Any]) -> int:
    """A number that an event has, whatever process asks."""
    name = str(envelope.get("id") or envelope["who"][0])
    return sum(name.encode())


def live(seed: int, loss: Loss | None = None, kind: str | None = None) -> Life:
    """The life that a seed stands for; or one of this kind, in which the store loses just that."""
    plan, dice = plan_of(seed, kind), random.Random(f"life {seed}")
    if loss is not None:
        plan.loss = loss
    worlds: list[World] = []

    async def whole(loop: VirtualLoop) -> None:
        worlds.append(World(loop, plan, dice))
        await worlds[0].live()

    gc.disable()  # a life is short, and looking through everything that was imported takes long
    try:
        with patch.object(refunds, "PAUSE_SECONDS", REFUNDER_PAUSE_SECONDS):
            run(whole, dice)
    except Exception as error:  # of the product's, or of the simulation's own
        worlds[0].checker.complain("error", f"{type(error).__name__}: {error}")
    finally:
        gc.enable()
    (world,) = worlds
    for violation in world.checker.violations:
        world.trace(violation)
    return Life(seed, world.trace.lines, world.checker.violations, world.wire.calls, world.checker.reached)
