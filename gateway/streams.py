"""Event streams: a campaign's phase and stock, for everybody; a reservation's state, for its user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import blake2b
from typing import Any

import orjson
import structlog
from aiohttp import web

from gateway.auth import Authenticator
from gateway.campaigns import Shop
from gateway.endpoint import granted
from gateway.open_files import open_files_max
from gateway.problems import Problem
from gateway.reservations import reservation_id
from gateway.topic import STREAMS_MAX, Fanout, Topic
from gateway.traffic import Visits
from gateway.watcher import Event, Watcher, event, headers_only
from reservation.desk import Desk, no_campaign
from reservation.ids import ReservationId
from reservation.outcomes import Fault
from reservation.record import Reservation
from reservation.tasks import end
from reservation.watch import Watch

LOOK_SECONDS = 0.25
"""How often a campaign that is watched is looked at."""
View = Callable[[Reservation], Awaitable[dict[str, Any]]]
_log = structlog.get_logger(__name__)


class Streams:
    """The endpoints of those who watch."""

    def __init__(
        self, shop: Shop, desk: Desk, view: View, watch: Watch, authenticator: Authenticator, visits: Visits
    ) -> None:
        self._visits = visits
        self._shop = shop
        self._desk = desk
        self._view = view
        self._watch = watch
        self._authenticator = authenticator
        self._fanout = Fanout()
        self._looking: set[asyncio.Task[None]] = set()

    async def campaign(self, request: web.Request) -> web.StreamResponse:
        campaign_id = request.match_info["campaign"]
        view = await self._shop.recent(campaign_id)
        if view is None:
            raise Problem.of(no_campaign(campaign_id))
        if request.method == "HEAD":
            return headers_only()
        self._fanout.admit()
        await self._visits.note(request, campaign_id)
        latest, name = _campaign_event(view), f"campaign {campaign_id}"
        topic = self._fanout.topic(name, _CampaignTopic)
        if topic is not None:
            await topic.tell(latest)
        # From here on nothing may wait: the topic lives only as long as somebody watches it.
        topic = self._fanout.topic(name, _CampaignTopic) or _CampaignTopic(
            self._fanout, name, latest, self._shop, campaign_id, self._looking
        )
        return Watcher(topic, request.headers.get("Last-Event-ID"))

    async def reservation(self, request: web.Request) -> web.StreamResponse:
        user = await self._authenticator.user(request)
        reservation = granted(await self._desk.read(reservation_id(request), user.id))
        latest, name = await self._reservation_event(reservation), f"reservation {reservation.id}"
        if request.method == "HEAD":
            return headers_only()
        self._fanout.admit()
        topic = self._fanout.topic(name, _ReservationTopic)
        if topic is not None and int(latest.id) > int(topic.latest.id):
            await topic.tell(latest)
        # As above.
        topic = self._fanout.topic(name, _ReservationTopic) or _ReservationTopic(
            self._fanout, name, latest, self._watch, reservation.id, self._reservation_event
        )
        return Watcher(topic, request.headers.get("Last-Event-ID"))

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """While the application runs."""
        # Half of the connections at least are for those who buy.
        self._fanout.watchers_max = min(STREAMS_MAX, open_files_max() // 2)
        yield
        await self._fanout.close()
        await end(*self._looking)
        await self._watch.close()

    async def end_all(self, app: web.Application) -> None:
        """When the process is told to stop: a drain does not wait for streams."""
        await self._fanout.end_all()

    async def _reservation_event(self, reservation: Reservation) -> Event:
        return event("reservation", str(reservation.version), await self._view(reservation))


class _CampaignTopic(Topic):
    """Looks at the campaign as anybody does, once for all its watchers."""

    stream = "campaign"

    def __init__(
        self,
        fanout: Fanout,
        name: str,
        latest: Event,
        shop: Shop,
        campaign_id: str,
        looking: set[asyncio.Task[None]],
    ) -> None:
        super().__init__(fanout, name, latest)
        self._shop = shop
        self._campaign_id = campaign_id
        self._looking = looking

    def begin(self) -> None:
        task = asyncio.create_task(self._look())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self) -> None:
        """Look again and again, until nobody watches any more."""
        while self.watchers:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                view = await self._shop.recent(self._campaign_id)
                if view is not None:
                    await self.tell(_campaign_event(view))
            except Fault:
                continue  # the catalog says that the store is away
            except Exception:
                _log.exception("not_looking", campaign=self._campaign_id)


class _ReservationTopic(Topic):
    """Hears of the reservation whenever it has moved."""

    stream = "reservation"

    def __init__(
        self,
        fanout: Fanout,
        name: str,
        latest: Event,
        watch: Watch,
        reservation_id: ReservationId,
        rendered: Callable[[Reservation], Awaitable[Event]],
    ) -> None:
        super().__init__(fanout, name, latest)
        self._watch = watch
        self._reservation_id = reservation_id
        self._rendered = rendered

    def begin(self) -> None:
        self._watch.add(self._reservation_id, self._moved)

    def stop(self) -> None:
        self._watch.remove(self._reservation_id)

    async def _moved(self, reservation: Reservation) -> None:
        await self.tell(await self._rendered(reservation))


def _campaign_event(view: dict[str, Any]) -> Event:
    """The event's id is its content's: it is the same in every process."""
    offers = [{name: offer[name] for name in ("sku", "remaining", "sold_out")} for offer in view["offers"]]
    shown = {"phase": view["phase"], "offers": offers}
    content_id = blake2b(orjson.dumps(shown), digest_size=12).hexdigest()
    return event("campaign", content_id, {"server_time": view["server_time"], **shown})
