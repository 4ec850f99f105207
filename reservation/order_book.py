"""Main orders and what they entitle to, campaign by campaign.

An order and a campaign may lie in different shards, where no script reaches both. So what an order
grants is written into the campaign as caps, by the order's version: first the order notes that it is
used there (enrol), then the campaign gets the caps (grant), then a reservation may claim them. When
the order shrinks, every campaign that it noted gets the new caps, by the newer version; what came
too late with an older one is turned away. Whatever happens in between, nothing stays granted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from reservation.campaign import Campaign
from reservation.kernel import Store
from reservation.kinds.kind import Kind
from reservation.main_order import MainOrder, OrderState
from reservation.outcomes import Contended, GrantOutcome, StoreUnavailable

_ATTEMPTS_MAX = 20


class OrderBook:
    """Main orders in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, order_id: str) -> MainOrder | None:
        stored = await self._store.order(order_id)
        if stored is None and await self._store.fenced():
            raise StoreUnavailable(f"the store is fenced, and may have lost main order {order_id}")
        return MainOrder.unpack(order_id, stored.version, stored.body) if stored else None

    async def change(
        self,
        order_id: str,
        decide: Callable[[MainOrder | None], MainOrder | None],
        *,
        event: bool,
    ) -> MainOrder | None:
        """Read, decide, write down; again when somebody else was first. None from `decide` changes nothing.

        With an event, the campaigns in which it is used are still to be told.
        """
        for _ in range(_ATTEMPTS_MAX):
            known = await self.read(order_id)
            order = decide(known)
            if order is None:
                return known
            version = known.version if known else 0
            unfinished = bool(order.campaigns) if event else None
            if await self._store.record_order(
                order_id, version, order.pack(), unfinished=unfinished, event=event
            ):
                return replace(order, version=version + 1)
        raise Contended(order_id)

    async def enrol(self, order_id: str, user: str, campaign: Campaign, kind: Kind) -> MainOrder | None:
        """The user's order, with what it grants in this campaign granted; None if it is not to be used."""

        def is_usable(known: MainOrder) -> bool:
            return known.state is OrderState.PAID and known.user == user

        def note(known: MainOrder | None) -> MainOrder | None:
            if known is None or not is_usable(known) or campaign.id in known.campaigns:
                return None
            return replace(known, campaigns=(*known.campaigns, campaign.id))

        order = await self.read(order_id)
        if order is None or not is_usable(order):
            return None
        if not any(kind.grants(campaign, order).values()):
            return order  # it qualifies for nothing here: nothing to note, and nothing to grant
        if campaign.id not in order.campaigns:
            order = await self.change(order_id, note, event=False)
            if order is None or not is_usable(order):
                return None
        await self.grant(campaign, order, kind.grants(campaign, order))
        return order

    async def grant(self, campaign: Campaign, order: MainOrder, caps: Mapping[str, int]) -> GrantOutcome:
        """Write the caps that this version of the order grants into the campaign."""
        return await self._store.grant(campaign.id, campaign.revision, order.id, order.version, caps)
