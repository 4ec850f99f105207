"""The roles, each a process: what runs until it is told to stop, and how it stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import structlog

from doorbuster import bootstrap
from doorbuster.settings import Settings
from doorbuster.vitals import Vitals
from reservation.outcomes import Fault
from reservation.tasks import end

STOP_SECONDS_MAX = 10.0
JWT_SECRET_CHARS_SAFE = 32
"""A shorter secret of HS256 can be guessed from any token that it signed."""
_log = structlog.get_logger(__name__)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until(stop: asyncio.Event, *running: Coroutine[Any, Any, None]) -> None:
    """Run these until `stop`. One that fails stops them all and is raised."""
    tasks = [asyncio.create_task(one) for one in running]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        await end(*tasks, stopping)


@asynccontextmanager
async def checked_store(settings: Settings, stop: asyncio.Event) -> AsyncIterator[None]:
    """A block that uses no store that would lose reservations by itself: raises SettingsError instead.

    One that is away is checked when it answers. If it will not do, `stop` is set, for the block to end.
    """
    if await bootstrap.check_store(settings):
        yield
        return

    async def check() -> None:
        try:
            await bootstrap.check_store_later(settings)
        except Exception as error:
            _log.error("store_refused", reason=str(error))
            stop.set()
            raise

    checking = asyncio.create_task(check())
    try:
        yield
    finally:
        await end(checking)
    if not checking.cancelled():
        checking.result()


async def run_gateway(settings: Settings, host: str, port: int) -> None:
    from gateway.app import ADMISSION, build  # as in bootstrap: the other roles do without
    from gateway.metrics import IN_PROGRESS
    from gateway.server import serve

    stop, vitals = stop_on_signals(), Vitals("gateway")
    if settings.jwt_secret is not None and len(settings.jwt_secret) < JWT_SECRET_CHARS_SAFE:
        _log.warning("short_jwt_secret", chars=len(settings.jwt_secret), safe_from=JWT_SECRET_CHARS_SAFE)
    # On all addresses, it reaches itself on loopback.
    own_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    own_url = f"http://{f'[{own_host}]' if ':' in own_host else own_host}:{port}"
    async with (
        checked_store(settings, stop),
        bootstrap.tracer(settings, "gateway") as tracer,
        bootstrap.gateway_parts(settings, own_url, vitals, tracer) as parts,
        vitals.told(),
    ):
        app = build(parts)
        vitals.look(lambda: IN_PROGRESS.set(app[ADMISSION].requests))
        await serve(app, host, port, stop)


async def run_worker(settings: Settings) -> None:
    stop, vitals = stop_on_signals(), Vitals("worker")
    async with (
        checked_store(settings, stop) if settings.amqp_url is None else nullcontext(),
        bootstrap.tracer(settings, "worker") as tracer,
        bootstrap.worker(settings, vitals, tracer) as (worker, lookout),
        bootstrap.refunder(settings, vitals, tracer) as refunder,
        bootstrap.notifier(settings, vitals, tracer) as notifier,
        vitals.told(),
    ):
        if refunder is None:
            _log.warning("no_refunds", reason="neither DOORBUSTER_REFUND_URL nor the sandbox is set")
        if settings.notify_url is None:
            _log.info("notifications_go_to_the_log", reason="DOORBUSTER_NOTIFY_URL is not set")

        async def settle() -> None:
            await worker.open()
            await worker.run()

        refunding = [refunder.run()] if refunder else []
        await until(stop, settle(), lookout.run(), notifier.run(), *refunding)
        await _leave(worker.close())


async def run_relay(settings: Settings) -> None:
    stop, vitals = stop_on_signals(), Vitals("relay")
    async with (
        checked_store(settings, stop),
        bootstrap.tracer(settings, "relay") as tracer,
        bootstrap.relay(settings, vitals, tracer) as relay,
        vitals.told(),
    ):

        async def pass_on() -> None:
            await relay.open()
            await relay.run()

        await until(stop, pass_on())
        await _leave(relay.close())


async def run_sweeper(settings: Settings) -> None:
    from settlement.sweeper import again
    from settlement.traffic import COPY_SECONDS

    stop, vitals = stop_on_signals(), Vitals("sweeper")
    async with (
        checked_store(settings, stop),
        bootstrap.tracer(settings, "sweeper") as tracer,
        bootstrap.sweeper(settings, vitals, tracer) as sweeper,
        bootstrap.traffic_copy(settings, vitals) as traffic,
        vitals.told(),
    ):
        await until(stop, *sweeper.loops(), again(traffic.step, COPY_SECONDS))


async def _leave(closing: Coroutine[Any, Any, None]) -> None:
    """Say goodbye, if there is still somebody to say it to."""
    with suppress(Fault, TimeoutError):
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await closing
