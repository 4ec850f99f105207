"""The use cases of main orders: reported, shrunk, cancelled; and what follows for their trade-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reservation.catalog import Catalog
from reservation.desk import Desk
from reservation.ids import ReservationId
from reservation.kernel import Store
from reservation.kinds import KINDS
from reservation.main_order import MainOrder, OrderState, ReportedOrder
from reservation.order_book import OrderBook
from reservation.outcomes import GrantOutcome, Outcome, Refusal
from reservation.record import LIVE, SOLD, Reservation

_ATTEMPTS_MAX = 20


@dataclass(frozen=True, slots=True)
class Granted:
    """What an order entitles to in a campaign, in units."""

    campaign: str
    granted: int
    used: int


class OrderDesk:
    """Main orders, and the trade-ins that hang on them."""

    def __init__(self, store: Store, catalog: Catalog, desk: Desk) -> None:
        self._store = store
        self._catalog = catalog
        self._desk = desk
        self._orders = OrderBook(store)

    async def read(self, order_id: str) -> MainOrder | None:
        return await self._orders.read(order_id)

    async def report(self, report: ReportedOrder) -> MainOrder | Refusal:
        """Take in what a service says of a paid order. Twice, or late, is harmless."""
        reported = MainOrder.of(report)

        def decide(known: MainOrder | None) -> MainOrder | None:
            if known is None:
                return reported
            if known.user not in (None, report.user):
                return None
            merged = known.merged(reported)
            return None if merged == known else merged

        order = await self._change(report.order_id, decide)
        if order.user != report.user:
            return Refusal(Outcome.IDEMPOTENCY_MISMATCH, "This order was reported for another user.")
        return await self._see_to(order)

    async def cancel(self, order_id: str) -> MainOrder:
        """Take back all that the order entitled to. Twice, or before the order itself, is harmless."""

        def decide(known: MainOrder | None) -> MainOrder | None:
            if known is None:
                return MainOrder(order_id, OrderState.CANCELLED)
            return None if known.state is OrderState.CANCELLED else known.cancelled()

        return await self._see_to(await self._change(order_id, decide))

    async def finish(self, order_id: str) -> None:
        """Tell every campaign in which the order is used what it grants by now."""
        for _ in range(_ATTEMPTS_MAX):
            order = await self._orders.read(order_id)
            if order is None:
                return
            told = [await self._tell(campaign_id, order) for campaign_id in order.campaigns]
            lost = {name for names in told for name in names}
            # Listed once every campaign was told: from then on nothing more is made of what is lost.
            for one in await self.trade_ins(order):
                claims = {(one.id.campaign, counter) for counter, _ in one.claims}
                if one.state in LIVE | SOLD and claims & lost:
                    await self._take_back(one.id, order)
            done = await self._store.record_order(
                order_id, order.version, order.pack(), unfinished=False, event=False
            )
            if done:
                return

    async def unfinished(self) -> list[str]:
        return await self._store.unfinished_orders()

    async def trade_ins(self, order: MainOrder) -> list[Reservation]:
        """The reservations that were made to the order."""
        if order.user is None or not order.campaigns:
            return []
        found = await self._desk.list_of(order.user, None)
        return [one for one in found if one.facts.order_id == order.id]

    async def granted(self, order: MainOrder) -> list[Granted]:
        """What the order entitles to, in every campaign that this process knows."""
        grants = [
            (campaign.id, KINDS[campaign.kind].grants(campaign, order)) for campaign in self._catalog.all()
        ]

        async def one(campaign_id: str, caps: Mapping[str, int]) -> Granted:
            counter, cap = next(iter(caps.items()))
            if campaign_id not in order.campaigns:
                return Granted(campaign_id, cap, 0)  # where it was never used, nobody has to be asked
            standing = await self._store.standing(campaign_id, [counter])
            return Granted(campaign_id, cap, standing.levels[0].used)

        found = await asyncio.gather(*(one(campaign_id, caps) for campaign_id, caps in grants if caps))
        return [here for here in found if here.granted or here.used]

    async def _change(
        self, order_id: str, decide: Callable[[MainOrder | None], MainOrder | None]
    ) -> MainOrder:
        order = await self._orders.change(order_id, decide, event=True)
        assert order is not None  # noqa: S101  (decide makes one where there is none)
        await self._store.confirm_order(order_id)  # where nothing changed: by whomever it was said
        return order

    async def _see_to(self, order: MainOrder) -> MainOrder:
        if order.campaigns:
            await self.finish(order.id)
        return order

    async def _tell(self, campaign_id: str, order: MainOrder) -> list[tuple[str, str]]:
        """Tell a campaign what the order grants by now; campaign and counter of what it does not any more."""
        caps: Mapping[str, int] = {}
        for _ in range(_ATTEMPTS_MAX):
            campaign = await self._catalog.load(campaign_id)
            if campaign is None:
                return []
            caps = KINDS[campaign.kind].grants(campaign, order)
            if await self._orders.grant(campaign, order, caps) is not GrantOutcome.STALE:
                break
        return [(campaign_id, counter) for counter, cap in caps.items() if cap == 0]

    async def _take_back(self, reservation_id: ReservationId, order: MainOrder) -> None:
        cancelled = order.state is OrderState.CANCELLED
        reason = "main_order_cancelled" if cancelled else "main_order_reduced"
        await self._desk.take_back(reservation_id, reason)
