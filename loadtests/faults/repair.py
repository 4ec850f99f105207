"""What an operator does after a store has lost something, as docs/reliability.md says."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import aiohttp
import orjson

from loadtests.faults.fault import Moment
from loadtests.faults.processes import ROOT
from loadtests.faults.stack import SERVICE_KEY, Stack

SECONDS_MAX = 70.0


async def reconcile(stack: Stack, moment: Moment) -> None:
    """`doorbuster reconcile --repair`, and resume what it has paused. What it cannot mend is noted."""
    began = time.monotonic()
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
    took = time.monotonic() - began
    moment.repairs.append(f"reconcile --repair, {took:.1f} s: {drifts or 'nothing differed'}")
    await _resume(stack, found["paused"])


async def _resume(stack: Stack, campaigns: list[str]) -> None:
    headers = {"Authorization": f"Bearer {SERVICE_KEY}"}
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for campaign in campaigns:
            url = f"http://127.0.0.1:{stack.port}/v1/campaigns/{campaign}/actions"
            async with session.post(url, json={"action": "resume"}, headers=headers):
                pass
