"""The routes, and what stands behind each: the gateway as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from gateway.admin import Admin, Audit
from gateway.admission import Admission
from gateway.auth import Authenticator
from gateway.campaigns import Shop
from gateway.endpoint import Handler, endpoint
from gateway.fast_lane import FastLane
from gateway.operators import Operators
from gateway.orders import Orders
from gateway.payments import Payments
from gateway.problems import Problem
from gateway.provider import CheckoutProvider
from gateway.quotes import Quotes
from gateway.rankings import Rankings
from gateway.reports import Report, Reports
from gateway.reservations import Reservations
from gateway.sandbox import Sandbox
from gateway.streams import Streams
from gateway.traffic import Traffic, Visits
from gateway.waitlists import Waitlists
from gateway.webhook import WebhookVerifier
from reservation.administration import Administration
from reservation.catalog import Catalog
from reservation.clock import StoreClock
from reservation.desk import Desk
from reservation.kernel import Store
from reservation.order_desk import OrderDesk
from reservation.outbox import Backlog
from reservation.outcomes import Fault
from reservation.tasks import end
from reservation.tracing import NO_TRACER, Tracer
from reservation.waitlist import Waitlist
from reservation.watch import Watch

ADMISSION: web.AppKey[Admission] = web.AppKey("admission", Admission)
FAST_LANE: web.AppKey[FastLane] = web.AppKey("fast_lane", FastLane)
BACKLOG_SECONDS = 1.0
"""How often the outbox is looked at."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the gateway stands on; doorbuster.bootstrap puts it together."""

    store: Store
    catalog: Catalog
    clock: StoreClock
    desk: Desk
    watch: Watch
    waitlist: Waitlist
    orders: OrderDesk
    administration: Administration
    authenticator: Authenticator
    provider: CheckoutProvider
    verifier: WebhookVerifier
    audit: Audit
    report: Report
    traffic: Traffic
    backlog: Callable[[int], Awaitable[Backlog]]
    outbox_events_max: int
    """Beyond it, no new reservations: the store's memory has to last until the book is back."""
    checks: Mapping[str, Callable[[], Awaitable[object]]]
    """By part: raises a Fault while the part cannot serve."""
    tracer: Tracer
    sandbox_base_url: str | None
    """Where the sandbox delivers webhooks; None is no sandbox."""


def build(parts: Parts) -> web.Application:
    """The application. It follows the catalog while it runs."""
    traffic = parts.traffic
    visits = Visits(traffic, parts.authenticator)
    shop = Shop(parts.store, parts.catalog, parts.clock, visits)
    admission = Admission(wait=lambda: parts.store.wait())
    reservations = Reservations(parts.desk, parts.catalog, parts.authenticator, admission, traffic)
    streams = Streams(shop, parts.desk, reservations.view, parts.watch, parts.authenticator, visits)
    payments = Payments(parts.desk, parts.authenticator, parts.provider, parts.verifier)
    quotes = Quotes(parts.desk, parts.authenticator, traffic)
    waitlists = Waitlists(parts.waitlist, parts.authenticator, traffic)
    rankings = Rankings(parts.store, parts.catalog, parts.authenticator)
    orders = Orders(parts.orders, parts.desk, reservations, parts.authenticator)
    admin = Admin(parts.administration, parts.catalog, shop, parts.authenticator, parts.audit)
    reports = Reports(parts.report, parts.authenticator)
    operators = Operators(parts.store, parts.catalog, parts.clock, parts.backlog, parts.checks, admission)
    routes: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/campaigns/{campaign}/reservations", reservations.reserve),
        ("GET", "/v1/campaigns", shop.list),
        ("GET", "/v1/campaigns/{campaign}", shop.get),
        ("GET", "/v1/campaigns/{campaign}/events", streams.campaign),
        ("PUT", "/v1/campaigns/{campaign}", admin.put),
        ("POST", "/v1/campaigns/{campaign}/actions", admin.act),
        ("POST", "/v1/campaigns/{campaign}/offers/{sku}/stock", admin.restock),
        ("GET", "/v1/campaigns/{campaign}/audit", admin.audit),
        ("GET", "/v1/campaigns/{campaign}/report", reports.get),
        ("POST", "/v1/campaigns/{campaign}/quote", quotes.quote),
        ("POST", "/v1/campaigns/{campaign}/waitlist", waitlists.join),
        ("GET", "/v1/campaigns/{campaign}/waitlist", waitlists.get),
        ("DELETE", "/v1/campaigns/{campaign}/waitlist", waitlists.leave),
        ("GET", "/v1/campaigns/{campaign}/rankings/buyers", rankings.buyers),
        ("GET", "/v1/reservations", reservations.list),
        ("GET", "/v1/reservations/{reservation}", reservations.get),
        ("GET", "/v1/reservations/{reservation}/events", streams.reservation),
        ("PATCH", "/v1/reservations/{reservation}", reservations.amend),
        ("DELETE", "/v1/reservations/{reservation}", reservations.cancel),
        ("POST", "/v1/reservations/{reservation}/payments", payments.request),
        ("POST", "/v1/payments/webhook", payments.webhook),
        ("POST", "/v1/orders", orders.report),
        ("GET", "/v1/orders/{order}", orders.get),
        ("POST", "/v1/orders/{order}/cancel", orders.cancel),
        ("POST", "/v1/orders/{order}/payments", orders.pay),
        ("GET", "/healthz", operators.healthz),
        ("GET", "/readyz", operators.readyz),
        ("GET", "/metrics", operators.metrics),
        ("GET", "/openapi.json", operators.openapi),
    ]
    app = web.Application()
    if parts.sandbox_base_url is not None:
        sandbox = Sandbox(parts.desk, parts.clock, parts.verifier, parts.sandbox_base_url)
        routes += [
            ("POST", "/sandbox/payments/{payment}", sandbox.pay),
            ("POST", "/sandbox/refunds", sandbox.refund),
        ]
        app.on_cleanup.append(sandbox.close)
    _add(app, routes, admission, parts.tracer)
    lane = FastLane(
        parts.store, parts.desk, parts.catalog, parts.authenticator, admission, traffic, parts.tracer
    )
    app[ADMISSION], app[FAST_LANE] = admission, lane
    app.cleanup_ctx.append(_heeding_backlog(parts, admission))
    app.cleanup_ctx.append(_following(parts.catalog))
    app.cleanup_ctx.append(streams.running)
    app.cleanup_ctx.append(traffic.running)
    app.on_shutdown.append(streams.end_all)
    return app


def _add(
    app: web.Application, routes: list[tuple[str, str, Handler]], admission: Admission, tracer: Tracer
) -> None:
    for method, path, handler in routes:
        traced = path.startswith(("/v1/", "/sandbox/"))  # and not what is asked once a second by machines
        add = app.router.add_get if method == "GET" else _adder(app, method)
        add(path, endpoint(admission, path, method, handler, tracer if traced else NO_TRACER))
    # Last, so that only what no route above takes comes here.
    for path in dict.fromkeys(path for _, path, _ in routes):
        allowed = sorted({method for method, other, _ in routes if other == path})
        app.router.add_route("*", path, endpoint(admission, path, "other", _not_allowed(allowed)))
    app.router.add_route("*", "/{anything:.*}", endpoint(admission, "", "other", _not_found))


def _adder(app: web.Application, method: str) -> Callable[[str, Handler], object]:
    return lambda path, handler: app.router.add_route(method, path, handler)


def _not_allowed(methods: list[str]) -> Handler:
    allowed = ", ".join(methods + (["HEAD"] if "GET" in methods else []))

    async def answer(request: web.Request) -> web.StreamResponse:
        raise Problem("method_not_allowed", f"Allowed here: {allowed}.", headers={"Allow": allowed})

    return answer


async def _not_found(request: web.Request) -> web.StreamResponse:
    raise Problem("not_found", "There is nothing at this address. See /openapi.json.")


def _heeding_backlog(parts: Parts, admission: Admission) -> Callable[[web.Application], AsyncIterator[None]]:
    async def watch() -> None:
        while True:
            with suppress(Fault):  # who cannot reach the store is refused for that
                backlog = await parts.backlog(parts.clock.now_ms())
                admission.backlogged = backlog.events > parts.outbox_events_max
            await asyncio.sleep(BACKLOG_SECONDS)

    async def heed(app: web.Application) -> AsyncIterator[None]:
        watcher = asyncio.create_task(watch())
        yield
        await end(watcher)

    return heed


def _following(catalog: Catalog) -> Callable[[web.Application], AsyncIterator[None]]:
    async def follow(app: web.Application) -> AsyncIterator[None]:
        follower = asyncio.create_task(catalog.follow())
        yield
        await end(follower)

    return follow
