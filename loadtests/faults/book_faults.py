"""What may happen to PostgreSQL."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import ExitStack, suppress

import psycopg

from loadtests.faults.fault import Moment, fault
from loadtests.faults.repair import reconcile
from loadtests.faults.servers import PostgresServer
from loadtests.faults.shoppers import Load
from loadtests.faults.stack import BOOK, Setting, Stack

DOWN_SECONDS = 1.0
READ_ONLY_SECONDS = 3.0
EXHAUSTED_SECONDS = 4.0
CONNECTIONS_MAX = 120
DEADLOCK_SECONDS_MAX = 15.0
LAG_SECONDS = 0.7


@fault(quick=True)
async def postgres_killed(stack: Stack, moment: Moment) -> None:
    """PostgreSQL is shut down `immediate`, as in a crash, and recovers from its log."""
    await stack.postgres.kill(signal.SIGQUIT)
    await asyncio.sleep(DOWN_SECONDS)
    await stack.postgres.start()


@fault()
async def postgres_deadlocked(stack: Stack, moment: Moment) -> None:
    """Somebody else locks what the worker wants and wants what it has: PostgreSQL ends one of both."""
    deadlocks = await asyncio.to_thread(_deadlock, stack.book_dsn)
    moment.expect(deadlocks > 0, f"{deadlocks} deadlocks")


def _deadlock(dsn: str) -> int:
    """Lock payments; once the worker waits for them, with orders in its hands, want those."""
    until = time.monotonic() + DEADLOCK_SECONDS_MAX
    with psycopg.connect(dsn, autocommit=True) as watching:
        before = _deadlocks(watching)
        while time.monotonic() < until and _deadlocks(watching) < before + 2:
            with psycopg.connect(dsn) as connection, suppress(psycopg.errors.DeadlockDetected):
                connection.execute("LOCK TABLE payments IN EXCLUSIVE MODE")
                while time.monotonic() < until and not _waits(watching):
                    time.sleep(0.01)
                connection.execute("LOCK TABLE orders IN EXCLUSIVE MODE")
            time.sleep(0.3)
        time.sleep(1.0)  # until it is counted
        return _deadlocks(watching) - before


def _waits(connection: psycopg.Connection) -> bool:
    found = connection.execute(
        "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'payments'::regclass"
    ).fetchone()
    return found is not None


def _deadlocks(connection: psycopg.Connection) -> int:
    found = connection.execute(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return int(found[0]) if found else 0


@fault()
async def postgres_connections_exhausted(stack: Stack, moment: Moment) -> None:
    """Others have all of PostgreSQL's connections for 4 s, and Doorbuster's own are ended."""
    count = await asyncio.to_thread(_exhaust, stack.book_dsn)
    moment.seen.append(f"{count} connections were taken by others")


def _exhaust(dsn: str) -> int:
    with ExitStack() as taken, psycopg.connect(dsn, autocommit=True) as ours:
        count = 0
        until = time.monotonic() + EXHAUSTED_SECONDS
        while time.monotonic() < until:
            ours.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doorbuster'"
            )
            while count < CONNECTIONS_MAX:
                try:
                    taken.enter_context(psycopg.connect(dsn))
                except psycopg.OperationalError:
                    break
                count += 1
            time.sleep(0.1)
        return count


@fault()
async def postgres_read_only(stack: Stack, moment: Moment) -> None:
    """PostgreSQL takes nothing for 3 s, as a standby or one whose disk is full."""
    await asyncio.to_thread(
        stack.postgres.run, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
    )
    await asyncio.sleep(READ_ONLY_SECONDS)
    await asyncio.to_thread(
        stack.postgres.run,
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    )


@fault(setting=Setting(standby=True), load=Load(rate=60.0))
async def postgres_failover(stack: Stack, moment: Moment) -> None:
    """PostgreSQL dies while its standby is 0.7 s behind, and that is promoted; the old one comes back as the
    standby. The operator runs `reconcile --repair`."""
    pair = stack.pair
    assert pair is not None  # noqa: S101  (it is the setting's)
    await asyncio.to_thread(pair.standby.leave)
    await asyncio.sleep(LAG_SECONDS)
    moment.begins()
    had = await asyncio.to_thread(_events, pair.primary)
    await pair.primary.kill(signal.SIGQUIT)
    has = await asyncio.to_thread(_events, pair.standby)
    moment.expect(has < had, f"the standby lacked {had - has} of {had} events")
    await pair.fail_over()
    moment.over()
    await pair.stand_by()
    await reconcile(stack, moment)


def _events(server: PostgresServer) -> int:
    with psycopg.connect(server.dsn(BOOK)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM order_events").fetchall()
    return int(count)
