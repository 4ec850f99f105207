"""The book of record: PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import orjson
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ProgramLimitExceeded, ReadOnlySqlTransaction
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from reservation.campaign import instant_of, ms_of
from reservation.envelope import Envelope
from reservation.ids import ReservationId
from reservation.main_order import MainOrder, OrderLine, OrderState
from reservation.outcomes import Fault
from reservation.record import Record
from reservation.traffic import Minute
from settlement.dsn import complete
from settlement.metrics import BOOK_SECONDS
from settlement.projection import Rows
from settlement.statements import statement

_CONNECTION_SECONDS_MAX = 5.0
"""That a statement waits for a connection. The pool tries for as long; after that, when one is wanted."""
USER_RESERVATIONS_MAX = 1_000
T = TypeVar("T")
PAGE_ROWS = 1_000
WAITING_ROWS_MAX = 100_000
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class BookUnavailable(Fault):
    """The book is away. Try again later."""


class BookRefused(Fault):
    """The book will never take this as it is."""


class RefundDue(NamedTuple):
    """A refund to ask the provider for; `amount` in minor units of `currency`."""

    refund_id: str
    payment_id: str
    amount: int
    currency: str
    reason: str
    provider_ref: str | None
    """The provider's own name for the charge: not always one made under our payment id."""


class NotificationDue(NamedTuple):
    """A notification to send; `attempts` with this one."""

    notification_id: str
    type: str
    body: dict[str, Any]
    attempts: int


class Waiting(NamedTuple):
    """How much waits, counted up to WAITING_ROWS_MAX, and for how long the oldest has."""

    refunds: int
    notifications: int
    notification_oldest_seconds: float


class CampaignOn(NamedTuple):
    """A campaign that is not over, and when it was last changed."""

    id: str
    kind: str
    changed_at: datetime


class Connections(NamedTuple):
    """How many connections are in use or idle, and how many statements wait for one."""

    used: int
    idle: int
    waiting: int


class Booked(NamedTuple):
    """A reservation as the book has it; no record where it was settled before the book kept them."""

    id: ReservationId
    version: int
    state: str
    record: Record | None


class BookedCampaign(NamedTuple):
    """A campaign as it was last changed."""

    revision: int
    status: str
    document: dict[str, Any]


class OrderAudit(NamedTuple):
    """What the book says of one reservation. Money in minor units."""

    reservation_id: str
    state: str
    version: int
    quantity: int
    sku: str
    user: str
    total: int
    paid: int
    refunded: int
    events: int
    payments_succeeded: int
    refunds: int


class Book:
    """Orders, their events, payments, refunds, notifications, campaigns. Methods raise BookUnavailable."""

    def __init__(self, dsn: str, *, connections_max: int = 4) -> None:
        whole = complete(dsn)
        only_primary = conninfo_to_dict(whole).get("target_session_attrs") == "read-write"
        self._pool = AsyncConnectionPool(
            whole,
            min_size=1,
            max_size=connections_max,
            open=False,
            timeout=_CONNECTION_SECONDS_MAX,
            reconnect_timeout=_CONNECTION_SECONDS_MAX,
            kwargs={"autocommit": True, "application_name": "doorbuster"},
            check=_check_writable if only_primary else AsyncConnectionPool.check_connection,
        )

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def ping(self) -> None:
        await self._all("SELECT 1", {})

    async def settle(self, envelopes: Sequence[Envelope]) -> None:
        """Take a batch of events in, in one transaction. Twice is harmless.

        Raises BookUnavailable when it may be tried again, and BookRefused or projection.Malformed
        when that would not help.
        """
        rows = Rows(envelopes)
        steps = (
            ("settle_campaigns", rows.campaigns),
            ("settle_main_orders", rows.main_orders),
            ("settle_events", rows.reservations),
            ("settle_orders", rows.reservations),
            ("settle_payments", rows.payments),
            ("settle_refunds", rows.refunds),
            ("settle_notifications", rows.notifications),
        )
        try:
            async with (
                self._connection() as connection,
                connection.transaction(),
                connection.pipeline(),
            ):
                for name, found in steps:
                    if found:
                        await connection.execute(statement(name), {"rows": f"[{','.join(found)}]"})
        except (psycopg.DataError, psycopg.IntegrityError, ProgramLimitExceeded) as error:
            raise BookRefused(str(error)) from error
        except (psycopg.Error, PoolTimeout, OSError) as error:
            raise BookUnavailable(str(error)) from error

    async def refunds_to_ask_for(self, limit: int) -> list[RefundDue]:
        """Refunds whose time to ask has come; each is given to one caller at a time."""
        found = await self._all(statement("refunds_to_ask_for"), {"limit": limit})
        return [RefundDue(*row) for row in found]

    async def waiting(self) -> Waiting:
        """What waits for others than us."""
        (row,) = await self._all(statement("waiting"), {"limit": WAITING_ROWS_MAX})
        return Waiting(*row)

    async def campaigns_on(self, since: datetime, limit: int) -> list[CampaignOn]:
        """Campaigns that are not over and have changed since, or shortly before; the last changed first."""
        found = await self._all(statement("campaigns_on"), {"since": since, "limit": limit})
        return [CampaignOn(*row) for row in found]

    def connections(self) -> Connections:
        """What the connections of this process are doing."""
        stats = self._pool.get_stats()
        idle = stats["pool_available"]
        return Connections(stats["pool_size"] - idle, idle, stats["requests_waiting"])

    async def refunds_pending(self) -> int:
        ((count,),) = await self._all("SELECT count(*) FROM refunds WHERE status = 'pending'", {})
        return int(count)

    async def notifications_to_send(
        self, limit: int, seconds_min: float, seconds_max: float
    ) -> list[NotificationDue]:
        """Notifications whose time has come; each is given to one caller at a time.

        The next attempt is from `seconds_min` off, for the first, to `seconds_max`.
        """
        parameters = {"limit": limit, "seconds_min": seconds_min, "seconds_max": seconds_max}
        found = await self._all(statement("notifications_to_send"), parameters)
        return [NotificationDue(*row) for row in found]

    async def note_notification_sent(self, notification: str) -> None:
        await self._all(statement("notification_sent"), {"notification": notification})

    async def note_notification_not_sent(self, notification: str, error: str, *, give_up: bool) -> None:
        parameters = {"notification": notification, "error": error, "give_up": give_up}
        await self._all(statement("notification_not_sent"), parameters)

    async def note_traffic(
        self, campaign: str, counts: Mapping[Minute, int], visitors: int, participants: int
    ) -> None:
        """Take in what was noted of a campaign. What is there already is never lowered."""
        rows = [
            {"minute": instant_of(one.minute * 60_000), "what": one.what, "count": times}
            for one, times in counts.items()
        ]
        people = {"campaign": campaign, "visitors": visitors, "participants": participants}
        try:
            async with self._connection() as connection, connection.transaction():
                if rows:
                    noted = {"campaign": campaign, "counts": orjson.dumps(rows).decode()}
                    await connection.execute(statement("note_traffic"), noted)
                await connection.execute(statement("note_people"), people)
        except (psycopg.Error, PoolTimeout, OSError) as error:
            raise BookUnavailable(str(error)) from error

    async def remembers(self, campaign: str) -> bool:
        query = "SELECT 1 FROM campaigns WHERE id = %(campaign)s"
        return bool(await self._all(query, {"campaign": campaign}))

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        """The user's newest reservations: at most USER_RESERVATIONS_MAX."""
        parameters = {"user": user, "limit": USER_RESERVATIONS_MAX}
        found = await self._all(statement("reservations_of_user"), parameters)
        ids = (ReservationId.parse(row[0]) for row in found)
        return [one for one in ids if one is not None]

    async def campaign_ids(self) -> list[str]:
        return [row[0] for row in await self._all("SELECT id FROM campaigns ORDER BY id", {})]

    async def campaign(self, campaign: str) -> BookedCampaign | None:
        found = await self._all(statement("campaign"), {"campaign": campaign})
        return BookedCampaign(*found[0]) if found else None

    async def reservations(self, campaign: str) -> AsyncIterator[list[Booked]]:
        """The campaign's reservations, oldest first, some at a time."""
        at, after = _LONG_AGO, ""
        while True:
            parameters = {"campaign": campaign, "at": at, "after": after, "limit": PAGE_ROWS}
            rows = await self._all(statement("records"), parameters)
            if not rows:
                return
            yield [_booked(row) for row in rows]
            after, at = rows[-1][0], rows[-1][-2]

    async def versions(self, ids: Sequence[ReservationId]) -> dict[ReservationId, int]:
        """In which versions the book has these, of those that it has with all that led there."""
        found = await self._all(statement("versions"), {"ids": [str(one) for one in ids]})
        versions = {row[0]: row[1] for row in found}
        return {one: versions[str(one)] for one in ids if str(one) in versions}

    async def changed_between(self, campaigns: Sequence[str], after_ms: int, before_ms: int) -> bool:
        """Whether any order of these campaigns last changed in a millisecond between these two."""
        parameters = {
            "campaigns": list(campaigns),
            "after": instant_of(after_ms + 0.5),
            "before": instant_of(before_ms - 0.5),
        }
        ((found,),) = await self._all(statement("changed_between"), parameters)
        return bool(found)

    async def main_orders(self, since_ms: int) -> AsyncIterator[list[MainOrder]]:
        """Main orders of which something was reported since then, some at a time, each with the campaigns
        that it was used in."""
        after, since = "", instant_of(since_ms)
        while True:
            parameters = {"after": after, "since": since, "limit": PAGE_ROWS}
            rows = await self._all(statement("main_orders"), parameters)
            if not rows:
                return
            yield [_main_order(row) for row in rows]
            after = rows[-1][0]

    async def main_orders_named(self, ids: Sequence[str]) -> dict[str, MainOrder]:
        """Of these main orders those that the book has, without where they were used."""
        rows = await self._all(statement("main_orders_named"), {"ids": list(ids)})
        return {row[0]: _main_order(row) for row in rows}

    async def audit_orders(self, campaign: str) -> dict[str, OrderAudit]:
        """The campaign's orders by reservation id."""
        found: dict[str, OrderAudit] = {}
        for number, row in enumerate(await self._all(statement("audit_orders"), {"campaign": campaign})):
            found[row[0]] = OrderAudit(*row)
            if number % PAGE_ROWS == 0:
                await asyncio.sleep(0)  # there may be a million
        return found

    async def quotas(self, campaign: str) -> dict[str | None, int | None]:
        """The most generous quota by SKU, None for the campaign's; None where any number went."""
        return dict(await self._all(statement("audit_quotas"), {"campaign": campaign}))

    async def promises(self, campaign: str) -> dict[str, int]:
        """The most that was ever promised, by a gift's counter; "entitlement" for units to a main order."""
        return dict(await self._all(statement("audit_promises"), {"campaign": campaign}))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._pool.connection() as connection:
            try:
                yield connection
            except ReadOnlySqlTransaction:
                await connection.close()  # the next one may be to a server that takes writes
                raise

    async def _all(self, query: str, parameters: dict[str, Any]) -> list[Any]:
        started = time.monotonic()
        try:
            async with self._connection() as connection:
                cursor = await connection.execute(query, parameters)
                found: list[Any] = []
                while some := await cursor.fetchmany(PAGE_ROWS):
                    found += some
                    await asyncio.sleep(0)  # there may be a million, and others are to be served
        except (psycopg.Error, PoolTimeout, OSError) as error:
            BOOK_SECONDS.labels("unavailable").observe(time.monotonic() - started)
            raise BookUnavailable(str(error)) from error
        BOOK_SECONDS.labels("ok").observe(time.monotonic() - started)
        return found


async def _check_writable(connection: psycopg.AsyncConnection[Any]) -> None:
    """Raises where the server takes no writes any more: another has taken its place."""
    cursor = await connection.execute("SHOW transaction_read_only")
    if await cursor.fetchone() != ("off",):
        await connection.close()  # or the pool would keep it
        raise psycopg.OperationalError("the server has become read-only")


def _booked(row: Sequence[Any]) -> Booked:
    name, state, version, user, sku, quantity, kept, created_at, updated_at = row
    found = ReservationId.parse(name)
    if found is None:
        raise BookRefused(f"not a reservation id: {name!r}")
    if kept is None:
        return Booked(found, version, state, None)
    record = Record(
        state=state,
        version=version,
        user=user,
        sku=sku,
        quantity=quantity,
        claims=tuple((counter, n) for counter, n in kept["claims"]),
        created_at=ms_of(created_at),
        updated_at=ms_of(updated_at),
        deadline=kept["deadline"],
        fingerprint=kept["fingerprint"],
        facts=kept["facts"],
    )
    return Booked(found, version, state, record)


def pages(found: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many at a time as the book is asked about at once."""
    for first in range(0, len(found), PAGE_ROWS):
        yield found[first : first + PAGE_ROWS]


def _main_order(row: Sequence[Any]) -> MainOrder:
    order_id, user, state, lines, paid_at, version, campaigns = row
    return MainOrder(
        order_id,
        OrderState(state),
        user,
        tuple(OrderLine(line["sku"], line["category"], line["amount"]) for line in lines),
        ms_of(paid_at) if paid_at else 0,
        tuple(campaigns or ()),
        version,
    )
