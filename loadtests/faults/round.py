"""One round: load, a fault in the middle of it, the drain, the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import aiohttp
import psycopg
from redis.exceptions import RedisError

from doorbuster import bootstrap
from loadtests.faults.fault import Fault, Missed, Moment
from loadtests.faults.judge import Bounds, Excuse, Verdict, judge, read_book
from loadtests.faults.log import ClientLog
from loadtests.faults.processes import ProcessFailed
from loadtests.faults.shoppers import (
    GRANTS,
    HOLD_SECONDS,
    Load,
    Shoppers,
    put_on_sale,
    states_of_orders,
)
from loadtests.faults.stack import JWT_SECRET, SERVICE_KEY, Stack
from reservation.outbox import Outbox
from reservation.outcomes import Fault as Unavailable
from reservation.redis_store import RedisStore

STRIKES_AFTER = (0.2, 0.35)
"""The share of the load's time after which the fault strikes."""
COMES_AFTER_SECONDS = 1.5
"""So long shoppers come after the fault, so that it is seen when they are served again."""
FAULT_SECONDS_MAX = 80.0
DRAIN_SECONDS_MAX = 90.0
_LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Outcome:
    """What came of one round."""

    fault: str
    seed: str
    verdict: Verdict
    recovered_s: float | None
    """From the fault's end to the first reservation that was acknowledged; None where none was."""
    settled_s: float | None
    """From the fault's end until all that had been acknowledged by then was in the book; likewise."""
    drained_s: float | None
    """From the last answer until nothing was on its way any more; None where that took too long."""
    outcomes: dict[str, int]
    unknown: dict[str, int]
    """Why there was no answer, by how often."""
    seen: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    missed: str | None = None
    """Why the round proves nothing."""

    def __post_init__(self) -> None:
        if self.recovered_s is None and self.missed is None:
            self.missed = "nothing was acknowledged once it was over"

    @property
    def ok(self) -> bool:
        return self.missed is None and self.verdict.ok

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}


async def play(stack: Stack, fault: Fault, seed: str, load: Load) -> tuple[Outcome, ClientLog]:
    """Play the fault once, and judge what came of it."""
    await stack.all_up()
    rng = random.Random(seed)
    shoppers = Shoppers(load, seed, stack.url, JWT_SECRET, SERVICE_KEY, stack.provider)
    documents = shoppers.documents()
    await put_on_sale(f"http://127.0.0.1:{stack.port}", SERVICE_KEY, documents)
    moment = Moment(rng)
    missed: str | None = None
    shopping = asyncio.create_task(shoppers.run())
    watching = asyncio.create_task(_in_the_book(stack, moment, shoppers.log))
    try:
        await asyncio.sleep(load.seconds * rng.uniform(*STRIKES_AFTER))
        moment.begins()
        try:
            async with asyncio.timeout(FAULT_SECONDS_MAX):
                await fault.inject(stack, moment)
        except (Missed, TimeoutError, ProcessFailed, RedisError, OSError, psycopg.Error) as error:
            missed = str(error) or f"not over within {FAULT_SECONDS_MAX:g} s"
        if not moment.ended_at:
            moment.over()
        await asyncio.sleep(COMES_AFTER_SECONDS)
        shoppers.close()
        await shopping
        await stack.all_up()
        drained_s, left = await _drain(stack, shoppers)
        settled_s = await _at_most(watching, 1.0)
    finally:
        for task in (shopping, watching):
            task.cancel()
        await asyncio.gather(shopping, watching, return_exceptions=True)
    try:
        verdict = await _verdict(stack, fault, shoppers, documents, moment)
    except (Unavailable, psycopg.Error, aiohttp.ClientError) as error:
        verdict = Verdict()
        verdict.find("I8", f"there was nothing to judge by: {type(error).__name__}: {error}")
    if drained_s is None:
        verdict.find("I8", f"not drained after {DRAIN_SECONDS_MAX:g} s: {left}")
    first = shoppers.log.first_acknowledged_after(moment.ended_at)
    return Outcome(
        fault.name,
        seed,
        verdict,
        None if first is None else first - moment.ended_at,
        settled_s,
        drained_s,
        dict(shoppers.log.outcomes()),
        dict(shoppers.log.unknown().most_common(5)),
        moment.seen,
        moment.repairs,
        missed,
    ), shoppers.log


async def _verdict(
    stack: Stack, fault: Fault, shoppers: Shoppers, documents: Sequence[dict[str, Any]], moment: Moment
) -> Verdict:
    async with bootstrap.auditor(stack.settings) as (auditor, _, _):
        audit = (await auditor.audit(shoppers.campaigns)).to_json()
    asked = sorted({one.order for one in shoppers.log.tries if one.order is not None})
    rows = await asyncio.to_thread(read_book, stack.book_dsn, shoppers.campaigns, asked)
    known = await states_of_orders(f"http://127.0.0.1:{stack.port}", SERVICE_KEY, asked)
    stock = {
        (document["id"], offer["sku"]): offer["stock"]
        for document in documents
        for offer in document["offers"]
    }
    excuse = None
    if fault.admits_seconds is not None:
        excuse = Excuse(moment.began_at, fault.admits_seconds, moment.gone_at)
    quotas = {document["id"]: document["per_user"] for document in documents if "per_user" in document}
    bounds = Bounds(stock, quotas, GRANTS, HOLD_SECONDS)
    verdict = judge(shoppers.log, rows, known, audit, stack.provider, bounds, excuse, moment.named)
    if fault.no_malfunction:
        for one in shoppers.log.tries:
            # Who sends on an idle connection in the instant in which it is closed has no answer, and that is
            # HTTP: it was not taken, and is sent again.
            if one.status is not None and one.status >= 500 and one.code != "overloaded":
                verdict.find("API", f"{one.what} {one.key}: {one.status} {one.code or one.error}")
    return verdict


async def _in_the_book(stack: Stack, moment: Moment, log: ClientLog) -> float:
    """Seconds from the fault's end until the book has all that had been acknowledged by then."""
    while not moment.ended_at:
        await asyncio.sleep(_LOOK_SECONDS)
    wanted = [told.id for told in log.acknowledged().values() if told.first_at <= moment.ended_at]
    while await asyncio.to_thread(_missing, stack.book_dsn, wanted):
        await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic() - moment.ended_at


def _missing(dsn: str, wanted: Sequence[str]) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=2) as connection:
            found = connection.execute(
                "SELECT count(*) FROM orders WHERE reservation_id = ANY(%s)", [list(wanted)]
            ).fetchone()
    except psycopg.Error:
        return True
    return found is None or int(found[0]) < len(wanted)


async def _at_most(task: asyncio.Task[float], seconds: float) -> float | None:
    done, _ = await asyncio.wait([task], timeout=seconds)
    return task.result() if done else None


async def _drain(stack: Stack, shoppers: Shoppers) -> tuple[float | None, str]:
    """Wait until nothing is on its way, and every hold has come to its end; for how many seconds, or what is
    left."""
    began_at, left = time.monotonic(), ""
    async with bootstrap.redis_servers(stack.settings) as servers:
        outbox, store = Outbox(servers, "faults"), RedisStore(servers)
        while time.monotonic() - began_at < DRAIN_SECONDS_MAX:
            waiting = await _unsettled(outbox, store)
            held = await asyncio.to_thread(_held, stack.book_dsn, shoppers.campaigns)
            if not waiting and not held:
                return time.monotonic() - began_at, ""
            left = f"{waiting}; {len(held)} held in the book: {held[:3]}"
            await asyncio.sleep(_LOOK_SECONDS)
    return None, left


async def _unsettled(outbox: Outbox, store: RedisStore) -> str:
    """What is still to be done, if anything: of main orders first, as that makes events."""
    try:
        if unfinished := await store.unfinished_orders():
            return f"{len(unfinished)} main orders unfinished"
        events = (await outbox.backlog(0)).events
    except Unavailable as fault:  # our connection has ended with the last life of the store
        return str(fault) or "no store"
    return f"{events} events in the outbox" if events else ""


def _held(dsn: str, campaigns: Sequence[str]) -> list[str]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT reservation_id FROM orders WHERE campaign = ANY(%s) AND state = 'held'", [list(campaigns)]
        ).fetchall()
    return [reservation for (reservation,) in found]


def shorter(load: Load, rate: float | None, seconds: float | None) -> Load:
    """The load as the command line wants it."""
    return replace(
        load,
        rate=load.rate if rate is None else rate,
        seconds=load.seconds if seconds is None else seconds,
    )
