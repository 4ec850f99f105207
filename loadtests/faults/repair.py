"""What an operator does after a store has lost something, as docs/reliability.md says."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import aiohttp
import orjson
import psycopg

from doorbuster import bootstrap
from loadtests.faults.fault import Moment
from loadtests.faults.processes import ROOT
from loadtests.faults.stack import SERVICE_KEY, Stack
from reservation.outbox import Outbox
from reservation.outcomes import StoreUnavailable
from reservation.redis_store import RedisStore

SECONDS_MAX = 70.0
FINISH_SECONDS_MAX = 20.0
STILL_SECONDS = 1.0
"""When nothing has come to the book for so long, nothing is on its way to it."""


async def reconcile(stack: Stack, moment: Moment) -> None:
    """`doorbuster reconcile --repair`, and resume what it has paused. What it cannot mend is noted."""
    began = time.monotonic()
    await _let_finish(stack)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "doorbuster", "reconcile", "--repair", "--json"),
        env={**os.environ, **stack.settings.environment()},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            said, complained = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    try:
        found = orjson.loads(said)
    except ValueError:
        moment.repairs.append(f"reconcile said {said[-300:]!r} {complained[-500:]!r}")
        return
    drifts: dict[str, int] = {}
    for one in found["differences"]:
        name = one["drift"] if one["mended"] else f"{one['drift']} not mended"
        drifts[name] = drifts.get(name, 0) + 1
    moment.named = (moment.named or set()) | {one["id"] for one in found["gone"]}
    if found["gone"]:
        drifts["named as gone"] = len(found["gone"])
    took = time.monotonic() - began
    moment.repairs.append(f"reconcile --repair, {took:.1f} s: {drifts or 'nothing differed'}")
    await _resume(stack, found["paused"])


async def _let_finish(stack: Stack) -> None:
    """Where the store is fenced: wait for what relays and workers had of it before."""
    until = time.monotonic() + FINISH_SECONDS_MAX
    async with bootstrap.redis_servers(stack.settings) as servers:
        store, outbox = RedisStore(servers), Outbox(servers, "operator")
        still, known = time.monotonic(), -1
        while time.monotonic() < until:
            try:
                if not await store.fenced():
                    return
                waiting = (await outbox.backlog(0)).events
            except StoreUnavailable:
                waiting = -1
            events = await asyncio.to_thread(_events, stack.book_dsn)
            if events != known or waiting:
                still, known = time.monotonic(), events
            elif time.monotonic() - still > STILL_SECONDS:
                return
            await asyncio.sleep(0.1)


def _events(dsn: str) -> int:
    """How many are in the book."""
    with psycopg.connect(dsn) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM order_events").fetchall()
    return int(count)


async def _resume(stack: Stack, campaigns: list[str]) -> None:
    headers = {"Authorization": f"Bearer {SERVICE_KEY}"}
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for campaign in campaigns:
            url = f"http://127.0.0.1:{stack.port}/v1/campaigns/{campaign}/actions"
            async with session.post(url, json={"action": "resume"}, headers=headers):
                pass
