"""Any life of any reservations keeps every invariant: random lives, on the model."""

from __future__ import annotations

import asyncio
from collections import Counter

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from reservation.campaign import rfc3339
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.desk import Desk, Request, Reserved, Taken
from reservation.ids import PaymentId, ReservationId, Stage
from reservation.kernel import RANKED
from reservation.lifecycle import Notice, NoticeType
from reservation.model import ModelStore
from reservation.record import LIVE, SOLD, PaymentStatus, RefundStatus, Reservation, State

SALE = "sale"
START_MS = 1_800_000_000_000
STOCK, PER_USER, HOLD_S = 5, 3, 60
USERS = ["ann", "bob", "cat"]

steps = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from(USERS), st.integers(0, 5), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("ask_to_pay"), st.integers(0, 20)),
    st.tuples(st.just("notice"), st.integers(0, 20), st.sampled_from(list(NoticeType)), st.integers(-1, 1)),
    st.tuples(st.just("wait"), st.sampled_from([1_000, 30_000, 61_000])),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("restock"), st.integers(-3, 3)),
)


class Clock(StoreClock):
    """The store's clock, known exactly."""

    def __init__(self) -> None:
        self.ms = START_MS

    def hear(self, store_now_ms: int) -> None:
        assert store_now_ms == self.ms

    def now_ms(self) -> int:
        return self.ms


class Life:
    """A sale on the model, one step at a time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = ModelStore(self.clock.now_ms)
        self.catalog = Catalog(self.store, self.clock)
        self.desk = Desk(self.store, self.catalog, self.clock)
        self.stock = STOCK
        self.made: list[ReservationId] = []
        self.ended: dict[ReservationId, list[State]] = {}

    async def configure(self, stock: int, revision: int) -> bool:
        document = {
            "id": SALE, "kind": "flash_sale", "currency": "CNY", "hold_seconds": HOLD_S, "per_user": PER_USER,
            "opens_at": rfc3339(START_MS), "closes_at": rfc3339(START_MS + 10**9),
            "offers": [{"sku": "phone", "price": 100, "stock": max(0, stock)}],
        }  # fmt: skip
        configured = await self.store.configure(
            SALE, revision, "running", orjson.dumps(document), {"stock/phone": stock}, START_MS + 10**9
        )
        return configured.outcome == "configured"

    async def step(self, name: str, *given: object) -> None:
        match name, given:
            case "reserve", (str(user), int(key), int(quantity)):
                reserved = await self.desk.reserve(SALE, user, None, str(key), Request("phone", quantity))
                if isinstance(reserved, Reserved) and not reserved.replayed:
                    self.made.append(reserved.reservation.id)
            case "wait", (int(ms),):
                self.clock.ms += ms
            case "sweep", ():
                for due in await self.desk.due(100):
                    await self.desk.lapse(due)
            case "restock", (int(delta),):
                campaign = await self.store.campaign(SALE)
                if campaign and await self.configure(self.stock + delta, campaign.revision):
                    self.stock += delta
            case _ if self.made:
                found = self.made[int(str(given[0])) % len(self.made)]
                await self.of_one(name, found, *given[1:])

    async def of_one(self, name: str, found: ReservationId, *given: object) -> None:
        reservation = await self.store.reservation(found)
        assert reservation is not None
        if name == "cancel":
            await self.desk.cancel(found, reservation.user)
        elif name == "ask_to_pay":
            await self.desk.request_payment(found, reservation.user, Stage.FULL)
        else:
            kind, wrong = given
            assert isinstance(kind, NoticeType)
            amount = reservation.facts.price.total + int(str(wrong))
            notice = Notice(kind, Stage.FULL, amount, "CNY", "ref")
            taken, after = await self.desk.take_notice(PaymentId(found, Stage.FULL), notice)
            if taken in (Taken.KNOWN, Taken.UNKNOWN) and after is not None:
                assert after == reservation, "what was known already changes nothing"

    async def check(self) -> None:
        snapshot = await self.store.snapshot(SALE)
        assert snapshot is not None
        taken, by_user = 0, Counter[str]()
        for one in snapshot.reservations:
            self.check_money(one)
            assert bool(one.claims) == (one.state in LIVE | SOLD)
            if one.state in LIVE | SOLD:
                taken += one.quantity
                by_user[one.user] += one.quantity
        assert taken == snapshot.used.get("stock/phone", 0) <= self.stock
        assert all(units <= PER_USER for units in by_user.values())
        used = {name: n for name, n in snapshot.used.items() if not name.startswith(RANKED)}
        assert {f"quota@{user}": units for user, units in by_user.items()} | {"stock/phone": taken} == {
            "stock/phone": 0, **used
        }  # fmt: skip
        versions = Counter(event.id for event in self.store.outbox if event.reservation)
        assert versions == {str(one.id): one.version for one in snapshot.reservations}

    @staticmethod
    def check_money(one: Reservation) -> None:
        charged = sum(p.amount for p in one.facts.payments.values() if p.status is PaymentStatus.SUCCEEDED)
        returned = sum(refund.amount for refund in one.facts.refunds.values())
        assert charged in (0, one.facts.price.total)
        if one.state in SOLD:
            assert (charged, returned) == (one.facts.price.total, 0)
        elif one.state is State.REFUNDED:
            assert charged == returned > 0
        else:
            assert charged == returned == 0
        for refund in one.facts.refunds.values():
            assert refund.status in (RefundStatus.PENDING, RefundStatus.SUCCEEDED)


@given(st.lists(steps, max_size=40))
@settings(max_examples=300, deadline=None)
def test_every_life_keeps_the_invariants(lives: list[tuple[object, ...]]) -> None:
    async def live() -> None:
        life = Life()
        assert await life.configure(STOCK, 0)
        for name, *arguments in lives:
            await life.step(str(name), *arguments)
            await life.check()

    asyncio.run(live())
