"""Wiring: where settings become parts. Nothing connects at import, and everything connects here.

What not all need is imported by who wires it. To start is mostly to import: neither a role nor a command is
to wait for HTTP, a broker's client or reports that it has nothing to do with.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

import structlog

from doorbuster.settings import PREFIX, Settings, SettingsError
from doorbuster.vitals import Vitals
from reservation.administration import Administration
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.cluster import Cluster
from reservation.desk import Desk
from reservation.durability import Durability, durability
from reservation.observer import NOBODY, Observer
from reservation.order_desk import OrderDesk
from reservation.outbox import Outbox
from reservation.outcomes import StoreUnavailable
from reservation.redis_store import RedisStore
from reservation.replicas import Replicas
from reservation.servers import Servers, all_clients, connected
from reservation.tracing import NO_TRACER, Tracer
from reservation.traffic import TrafficLog
from reservation.waitlist import Waitlist
from reservation.watch import Watch
from settlement.book import Book

if TYPE_CHECKING:
    from gateway.app import Parts
    from settlement.audit import Auditor
    from settlement.dead_letters import DeadLetters
    from settlement.lookout import Lookout
    from settlement.notifier import Notifier, Recipient
    from settlement.reconcile import Reconciler
    from settlement.refunds import Refunder
    from settlement.relay import Relay
    from settlement.report.report import Reporter
    from settlement.source import Source
    from settlement.sweeper import Sweeper
    from settlement.traffic import TrafficCopy
    from settlement.worker import Worker

_CHECK_AGAIN_SECONDS = (0.5, 1.0)
_log = structlog.get_logger(__name__)


def _needed(settings: Settings, name: str) -> str:
    """A setting that this part cannot do without. Raises SettingsError."""
    settings.need(name)
    return str(getattr(settings, name))


def consumer_name() -> str:
    """A name that no other reader of the outbox has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def tracer(settings: Settings, role: str) -> AsyncIterator[Tracer]:
    """Who keeps this role's traces; nobody, unless a collector is named."""
    if settings.traces_url is None or not settings.traces_sample:
        yield NO_TRACER
        return
    from doorbuster.traces import OtlpTracer

    found = OtlpTracer(settings.traces_url, settings.traces_sample, role)
    try:
        yield found
    finally:
        await found.close()


def _store(
    servers: Servers, settings: Settings, observer: Observer = NOBODY, tracer: Tracer = NO_TRACER
) -> RedisStore:
    return RedisStore(servers, replicas=_replicas(settings), observer=observer, tracer=tracer)


def _outbox(servers: Servers, settings: Settings, observer: Observer) -> Outbox:
    return Outbox(servers, consumer_name(), replicas=_replicas(settings), observer=observer)


def _replicas(settings: Settings) -> Replicas:
    return Replicas(settings.redis_replicas, settings.redis_replicas_on_disk)


@asynccontextmanager
async def redis_servers(settings: Settings) -> AsyncIterator[Servers]:
    async with connected(_needed(settings, "redis_url")) as servers:
        yield servers


async def check_store(settings: Settings) -> bool:
    """Whether the store could be checked: False while it is away. Raises SettingsError if it would lose
    reservations by itself."""
    try:
        await _check_store(settings)
    except StoreUnavailable as fault:
        _log.warning("durability_not_checked", error=str(fault))
        return False
    return True


async def check_store_later(settings: Settings) -> None:
    """For a store that was away: check it as soon as it answers. Raises SettingsError."""
    while True:
        # Sooner than a new run of a store takes anything. Not all processes at once.
        await asyncio.sleep(random.uniform(*_CHECK_AGAIN_SECONDS))  # noqa: S311
        with suppress(StoreUnavailable):
            await _check_store(settings)
            return


async def _check_store(settings: Settings) -> None:
    async with redis_servers(settings) as servers:
        all_found = await asyncio.gather(*map(durability, await all_clients(servers)))
        if isinstance(servers, Cluster) and not all(one.clustered for one in all_found):
            raise SettingsError(
                f"{PREFIX}REDIS_URL: this Redis is not a cluster; say redis:// without +cluster"
            )
    if settings.redis_replicas_on_disk:
        _check_disks(settings, all_found)
    found = max(all_found, key=lambda one: one.defect)
    if not found.defect:
        _log.info("durability", lost_with_its_machine=found.loses)
    elif settings.allow_unsafe_redis:
        _log.warning("unsafe_redis", reason=found.defect)
    else:
        raise SettingsError(f"{PREFIX}REDIS_URL: this Redis {found.defect}, or {PREFIX}ALLOW_UNSAFE_REDIS=1")


def _check_disks(settings: Settings, all_found: Sequence[Durability]) -> None:
    """Raises SettingsError if these cannot say what is on disk, or not soon enough."""
    name = f"{PREFIX}REDIS_REPLICAS_ON_DISK"
    if not settings.redis_replicas:
        raise SettingsError(f"{name}: set {PREFIX}REDIS_REPLICAS as well: how many")
    hindered = max(one.slow_to_disk for one in all_found)
    if hindered:
        raise SettingsError(f"{name}: this Redis {hindered}")


@asynccontextmanager
async def book(
    settings: Settings, *, connections_max: int = 4, vitals: Vitals | None = None
) -> AsyncIterator[Book]:
    found = Book(_needed(settings, "postgres_dsn"), connections_max=connections_max)
    await found.open()
    if vitals is not None:
        vitals.mind(found)
    try:
        yield found
    finally:
        await found.close()


def unfenced(store: RedisStore) -> Callable[[], Awaitable[None]]:
    """A check of whether the store answers, and takes reservations."""

    async def check() -> None:
        reason = await store.fenced()
        if reason:
            raise StoreUnavailable(f"fenced: {reason}")

    return check


@asynccontextmanager
async def gateway_parts(
    settings: Settings, own_url: str, vitals: Vitals, tracer: Tracer
) -> AsyncIterator[Parts]:
    """What a gateway process needs. `own_url` is where it reaches itself."""
    from gateway.app import Parts
    from gateway.auth import Authenticator
    from gateway.jwks import KeySet
    from gateway.provider import HostedCheckout
    from gateway.traffic import Traffic
    from gateway.webhook import WebhookVerifier
    from settlement.audit import Auditor

    if settings.jwks is None:
        settings.need("jwt_secret")
    clock = StoreClock()
    verifier = WebhookVerifier(_needed(settings, "psp_secret"), clock)
    authenticator = Authenticator(
        clock,
        jwt_secret=settings.jwt_secret,
        jwks=KeySet(settings.jwks) if settings.jwks else None,
        service_key=_needed(settings, "service_key"),
    )
    pay_url = settings.pay_url
    if pay_url is None and settings.sandbox:
        pay_url = f"{settings.public_url or own_url}/sandbox/payments/{{payment_id}}"
    async with redis_servers(settings) as servers, book(settings, vitals=vitals) as the_book:
        store = _store(servers, settings, vitals.store, tracer)
        catalog = Catalog(store, clock)
        desk = Desk(store, catalog, clock, the_book)
        yield Parts(
            store=store,
            catalog=catalog,
            clock=clock,
            desk=desk,
            watch=Watch(servers, store),
            waitlist=Waitlist(store, catalog, clock, desk),
            orders=OrderDesk(store, catalog, desk),
            administration=Administration(store, catalog, the_book),
            authenticator=authenticator,
            provider=HostedCheckout(pay_url),
            verifier=verifier,
            audit=Auditor(store, the_book).audit,
            report=reporter(settings).report,
            traffic=Traffic(TrafficLog(servers), clock, _people_key(settings)),
            backlog=Outbox(servers, consumer_name(), observer=vitals.store).backlog,
            outbox_events_max=settings.outbox_events_max,
            checks={"store": unfenced(store), "book": the_book.ping},
            tracer=tracer,
            sandbox_base_url=own_url if settings.sandbox else None,
        )


def _people_key(settings: Settings) -> bytes:
    """What digests of people are made with: the same in all processes, and nobody else's."""
    return blake2b(_needed(settings, "service_key").encode(), digest_size=32, person=b"traffic").digest()


@asynccontextmanager
async def administration(settings: Settings) -> AsyncIterator[tuple[Administration, Catalog]]:
    """What it takes to change campaigns."""
    async with redis_servers(settings) as servers, book(settings, connections_max=1) as the_book:
        store = _store(servers, settings)
        catalog = Catalog(store, StoreClock())
        yield Administration(store, catalog, the_book), catalog


@asynccontextmanager
async def auditor(settings: Settings) -> AsyncIterator[tuple[Auditor, Catalog, Book]]:
    from settlement.audit import Auditor

    async with _store_and_book(settings) as (store, the_book):
        yield Auditor(store, the_book), Catalog(store, StoreClock()), the_book


def reporter(settings: Settings) -> Reporter:
    """It connects for each report, and to the book alone."""
    from settlement.report.reader import ReportReader
    from settlement.report.report import Reporter

    return Reporter(ReportReader(_needed(settings, "postgres_dsn")))


@asynccontextmanager
async def reconciler(settings: Settings) -> AsyncIterator[tuple[Reconciler, Catalog, Book]]:
    from settlement.reconcile import Reconciler

    async with _store_and_book(settings) as (store, the_book):
        yield Reconciler(store, the_book), Catalog(store, StoreClock()), the_book


@asynccontextmanager
async def _store_and_book(settings: Settings) -> AsyncIterator[tuple[RedisStore, Book]]:
    """For a command that looks at both. What it mends, the book has: no replica has to."""
    async with redis_servers(settings) as servers, book(settings, connections_max=1) as the_book:
        yield RedisStore(servers), the_book


@asynccontextmanager
async def worker(settings: Settings, vitals: Vitals, tracer: Tracer) -> AsyncIterator[tuple[Worker, Lookout]]:
    """A worker on the broker, or on the outbox itself where there is no broker; and who tells what waits."""
    from settlement.lookout import Lookout
    from settlement.worker import Worker

    async with AsyncExitStack() as stack:
        the_book = await stack.enter_async_context(book(settings, vitals=vitals))
        source: Source
        if settings.amqp_url is not None:
            from settlement.rabbit import Broker, RabbitSource

            source = RabbitSource(Broker(settings.amqp_url))
        else:
            from settlement.dead_letters import StoreDeadLetters
            from settlement.source import OutboxSource

            servers = await stack.enter_async_context(redis_servers(settings))
            letters = StoreDeadLetters(servers, observer=vitals.store)
            source = OutboxSource(_outbox(servers, settings, vitals.store), letters)
        lookout = Lookout(the_book.waiting, the_book.campaigns_on, source.dead_letters)
        yield Worker(source, the_book, tracer), lookout


@asynccontextmanager
async def refunder(settings: Settings, vitals: Vitals, tracer: Tracer) -> AsyncIterator[Refunder | None]:
    """Asks for refunds; None where no provider takes any."""
    url = settings.refund_url
    if url is None and settings.sandbox:
        settings.need("public_url")
        url = f"{settings.public_url}/sandbox/refunds"
    if url is None:
        yield None
        return
    from settlement.provider import HttpRefunds
    from settlement.refunds import Refunder

    provider = HttpRefunds(url, _needed(settings, "psp_secret"))
    async with book(settings, connections_max=1, vitals=vitals) as the_book:
        try:
            yield Refunder(the_book, provider, tracer)
        finally:
            await provider.close()


@asynccontextmanager
async def notifier(settings: Settings, vitals: Vitals, tracer: Tracer) -> AsyncIterator[Notifier]:
    """Tells the merchant's systems, or the log where no URL is set."""
    from settlement.notifier import Notifier
    from settlement.recipients import LogRecipient, WebhookRecipient

    recipient: Recipient = LogRecipient()
    if settings.notify_url is not None:
        recipient = WebhookRecipient(settings.notify_url, _needed(settings, "notify_secret"))
    async with book(settings, connections_max=1, vitals=vitals) as the_book:
        try:
            yield Notifier(the_book, recipient, tracer=tracer)
        finally:
            await recipient.close()


@asynccontextmanager
async def relay(settings: Settings, vitals: Vitals, tracer: Tracer) -> AsyncIterator[Relay]:
    from settlement.rabbit import Broker
    from settlement.relay import Relay

    async with redis_servers(settings) as servers:
        outbox, broker = _outbox(servers, settings, vitals.store), Broker(_needed(settings, "amqp_url"))
        yield Relay(outbox, broker, tracer)


@asynccontextmanager
async def sweeper(settings: Settings, vitals: Vitals, tracer: Tracer) -> AsyncIterator[Sweeper]:
    from settlement.book_witness import BookWitness
    from settlement.patrol import DIFFERENCES_MAX, SETTLE_SECONDS_MAX, Patrol
    from settlement.reconcile import Reconciler
    from settlement.sweeper import Sweeper

    async with (
        redis_servers(settings) as servers,
        book(settings, connections_max=2, vitals=vitals) as the_book,
    ):
        store, clock = _store(servers, settings, vitals.store, tracer), StoreClock()
        catalog = Catalog(store, clock)
        desk = Desk(store, catalog, clock, the_book)
        waitlist, orders = Waitlist(store, catalog, clock, desk), OrderDesk(store, catalog, desk)
        witness = BookWitness(store, the_book)
        patrol = Patrol(
            Reconciler(
                store,
                the_book,
                settle_seconds_max=SETTLE_SECONDS_MAX,
                differences_max=DIFFERENCES_MAX,
                counts=False,
            ),
            catalog.all,
        )
        yield Sweeper(store, catalog, desk, waitlist, orders, witness, patrol, tracer)


@asynccontextmanager
async def traffic_copy(settings: Settings, vitals: Vitals) -> AsyncIterator[TrafficCopy]:
    """On connections of its own: nothing that has to be done in time waits for it."""
    from settlement.traffic import TrafficCopy

    async with (
        redis_servers(settings) as servers,
        book(settings, connections_max=1, vitals=vitals) as the_book,
    ):
        yield TrafficCopy(TrafficLog(servers), the_book)


@asynccontextmanager
async def dead_letters(settings: Settings) -> AsyncIterator[DeadLetters]:
    if settings.amqp_url is not None:
        from settlement.rabbit import Broker, RabbitDeadLetters

        broker = Broker(settings.amqp_url)
        await broker.open()
        try:
            yield RabbitDeadLetters(broker)
        finally:
            await broker.close()
    else:
        from settlement.dead_letters import StoreDeadLetters

        async with redis_servers(settings) as servers:
            yield StoreDeadLetters(servers)
