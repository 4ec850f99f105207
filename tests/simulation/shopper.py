"""Shoppers: they want things, change their minds, ask twice, pay late, and remember what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from reservation.campaign import rfc3339
from reservation.desk import Request, Reserved
from reservation.ids import ReservationId, Stage
from reservation.main_order import ReportedOrder
from reservation.outcomes import Fault, Refusal
from reservation.paying import payment_of
from reservation.record import LIVE, PaymentStatus, Reservation, State
from reservation.steps import due
from reservation.waitlist import Waiting
from tests.simulation.log import ClientLog, Standing, Told
from tests.simulation.loop import START_SECONDS
from tests.simulation.plan import BALANCE_OPENS, Plan
from tests.simulation.provider import Provider
from tests.simulation.roles import Gateway
from tests.simulation.wire import Trace, Wire

T = TypeVar("T")


class Shop:
    """What clients see of the world."""

    plan: Plan
    wire: Wire
    trace: Trace
    log: ClientLog
    provider: Provider

    async def ask(self, call: Callable[[Gateway], Awaitable[T]]) -> T:
        raise NotImplementedError

    async def insist(self, call: Callable[[Gateway], Awaitable[T]]) -> T:
        raise NotImplementedError

    def note(self, sent_at: float, reservation: Reservation) -> None:
        """A client was told."""
        self.log.told.append(Told(sent_at, self.wire.loop.time(), reservation))


class Shopper:
    """One user, in every campaign."""

    def __init__(self, shop: Shop, user: str) -> None:
        self._shop = shop
        self._dice = shop.wire.dice
        self._user = user
        self._keys = 0
        self._asked: list[tuple[str, str, Request]] = []
        """Campaign, key and request of all that was asked for."""
        self._own: dict[ReservationId, Reservation] = {}
        self._orders = 0

    async def live(self) -> None:
        acts: list[tuple[float, Callable[[dict[str, Any]], Awaitable[None]]]] = [
            (4, self._reserve),
            (2, self._reserve_again),
            (4, self._pay),
            (2, self._cancel),
            (2.5, self._amend),
            (2, self._join),
            (0.5, self._leave),
            (1, self._pay_and_cancel),
            (0.7, self._cancel_order),
        ]
        weights, choices = [weight for weight, _ in acts], [act for _, act in acts]
        dice = self._dice
        await asyncio.sleep(0.3 + dice.random() / 2)
        document = dice.choice(self._shop.plan.documents)
        await self._reserve(document)
        for _ in range(self._shop.plan.acts):
            await asyncio.sleep(dice.choice((0.0, 0.5, 4.0)) * dice.random())
            document = dice.choice(self._shop.plan.documents)
            await dice.choices(choices, weights)[0](document)
        if document["kind"] == "presale":
            await asyncio.sleep(max(0.0, BALANCE_OPENS - self._shop.wire.loop.time()) + 5 * dice.random())
            for _ in range(2):
                await self._pay(document)

    async def _reserve(self, document: dict[str, Any]) -> None:
        self._keys += 1
        offer = self._dice.choice(document["offers"])
        order_id = await self._order() if document["kind"] == "trade_in" else None
        request = Request(offer["sku"], self._dice.choice((1, 1, 2)), order_id)
        asked = (document["id"], f"key-{self._keys}", request)
        self._asked.append(asked)
        if self._dice.random() < 0.2:  # impatient: twice at once
            await asyncio.gather(self._ask_for(*asked), self._ask_for(*asked))
        else:
            await self._ask_for(*asked)

    async def _reserve_again(self, _: dict[str, Any]) -> None:
        if self._asked:
            await self._ask_for(*self._dice.choice(self._asked))

    async def _ask_for(self, campaign: str, key: str, request: Request) -> None:
        log = self._shop.log
        log.asked[ReservationId.derive(campaign, self._user, key)] = (
            self._user,
            request.sku,
            request.quantity,
        )
        sent_at = self._shop.wire.loop.time()
        answer = await self._shop.insist(
            lambda gateway: gateway.desk.reserve(campaign, self._user, None, key, request)
        )
        if isinstance(answer, Reserved):
            log.ids_of_key[campaign, self._user, key].add(answer.reservation.id)
        said = "replayed" if isinstance(answer, Reserved) and answer.replayed else ""
        self._hear(sent_at, f"reserve {key} {said}", answer)

    def _hear(self, sent_at: float, what: str, answer: Reserved | Reservation | Refusal) -> None:
        if isinstance(answer, Refusal):
            self._shop.trace(self._user, what, "refused", answer.code)
            return
        one = answer.reservation if isinstance(answer, Reserved) else answer
        known = self._own.get(one.id)
        if known is None or known.version <= one.version or known.created_at_ms < one.created_at_ms:
            self._own[one.id] = one
        self._shop.trace(self._user, what, one.id, one.state, f"v{one.version}", f"x{one.quantity}")
        self._shop.note(sent_at, one)

    def _one(self, *states: State) -> Reservation | None:
        found = [one for one in self._own.values() if one.state in states]
        return self._dice.choice(found) if found else None

    async def _pay(self, _: dict[str, Any]) -> None:
        one = self._one(*LIVE)
        if one is None:
            return
        stage = (due(one) or due(self._own[one.id]) or (Stage.FULL,))[0]
        sent_at = self._shop.wire.loop.time()
        answer = await self._shop.insist(
            lambda gateway: gateway.desk.request_payment(one.id, self._user, stage)
        )
        self._hear(sent_at, f"pay {stage}", answer)
        if isinstance(answer, Reservation):
            payment = payment_of(answer, stage)
            if payment is not None and payment.status is not PaymentStatus.SUCCEEDED:
                # On the provider's page, some think for longer than their hold.
                await asyncio.sleep(self._thinking(answer))
                self._shop.provider.pay(answer.payment_id(payment.name), payment.amount)

    def _thinking(self, one: Reservation) -> float:
        """For how many seconds: often not long, sometimes until the last moment, or after it."""
        left = one.deadline_ms / 1000 - START_SECONDS - self._shop.wire.loop.time()
        if self._dice.random() < 0.45:
            return max(0.0, left + self._dice.random() - 0.4)
        return self._dice.choice((0.1, 0.1, 0.5, 5.0)) * self._dice.random()

    async def _cancel(self, _: dict[str, Any]) -> None:
        one = self._one(*LIVE)
        if one is None:
            return
        sent_at = self._shop.wire.loop.time()
        answer = await self._shop.insist(lambda gateway: gateway.desk.cancel(one.id, self._user))
        self._hear(sent_at, "cancel", answer)

    async def _pay_and_cancel(self, document: dict[str, Any]) -> None:
        await asyncio.gather(self._pay(document), self._cancel(document), self._cancel(document))

    async def _amend(self, _: dict[str, Any]) -> None:
        one = self._one(*LIVE)
        if one is None:
            return
        quantity, sent_at = self._dice.choice((1, 2, 3)), self._shop.wire.loop.time()
        answer = await self._shop.insist(lambda gateway: gateway.desk.amend(one.id, self._user, quantity))
        self._hear(sent_at, f"amend to {quantity}", answer)

    async def _join(self, document: dict[str, Any]) -> None:
        campaign, offer = document["id"], self._dice.choice(document["offers"])
        order_id = await self._order() if document["kind"] == "trade_in" else None
        request = Request(offer["sku"], self._dice.choice((1, 1, 2)), order_id)
        log, asked_at = self._shop.log, self._shop.wire.loop.time()
        log.joined.add((campaign, self._user))
        known = log.waits(campaign, request.sku, self._user)
        since = known.since if known and known.quantity == request.quantity else asked_at
        log.leave(campaign, request.sku, self._user, asked_at)  # another quantity is another place
        answer = await self._shop.insist(
            lambda gateway: gateway.waitlist.join(campaign, self._user, None, request)
        )
        if isinstance(answer, Waiting):
            now = self._shop.wire.loop.time()
            place = Standing(campaign, request.sku, self._user, request.quantity, asked_at, since, now)
            log.lines.append(place)
            wanted = f"{request.quantity} {request.sku}"
            self._shop.trace(self._user, "stands in line for", wanted, "at", answer.position)

    async def _leave(self, document: dict[str, Any]) -> None:
        campaign = document["id"]
        for offer in document["offers"]:
            now = self._shop.wire.loop.time()
            self._shop.log.leave(campaign, offer["sku"], self._user, now, surely=True)
        await self._shop.insist(lambda gateway: gateway.waitlist.leave(campaign, self._user, None))
        self._shop.trace(self._user, "leaves the line")

    async def _order(self) -> str:
        """A main order, sometimes a new one."""
        if self._orders == 0 or self._dice.random() < 0.3:
            self._orders += 1
            name = f"order-{self._user}-{self._orders}"
            reported = {
                "order_id": name,
                "user": self._user,
                "paid_at": rfc3339(int(START_SECONDS) * 1000),
                "lines": [{"sku": "tv", "amount": self._dice.choice((100, 200, 99))}],
            }
            report = ReportedOrder.model_validate_json(orjson.dumps(reported))
            await self._shop.insist(lambda gateway: gateway.orders.report(report))
            return name
        return f"order-{self._user}-{self._dice.randint(1, self._orders)}"

    async def _cancel_order(self, document: dict[str, Any]) -> None:
        if document["kind"] != "trade_in" or not self._orders:
            return
        name = f"order-{self._user}-{self._dice.randint(1, self._orders)}"
        try:
            order = await self._shop.ask(lambda gateway: gateway.orders.cancel(name))
        except Fault:
            return
        self._shop.trace("order", name, order.state)
