"""What may happen to the processes of Doorbuster itself."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp

from loadtests.faults.fault import Missed, Moment, fault
from loadtests.faults.stack import GATEWAYS, Setting, Stack

RESTART_SECONDS = 0.3
"""What a supervisor takes to notice."""
STOP_SECONDS = 10.0
CLOCK_SECONDS = 300
STREAMS = 20


@fault(quick=True)
async def gateway_killed(stack: Stack, moment: Moment) -> None:
    """Each gateway in turn gets SIGKILL with requests under way, and is started again."""
    for name in moment.rng.sample(GATEWAYS, len(GATEWAYS)):
        await stack.roles[name].kill()
        moment.expect(not stack.roles[name].running, f"{name} was killed")
        await asyncio.sleep(RESTART_SECONDS)
        await stack.launch(name)


@fault()
async def gateway_killed_before_answering(stack: Stack, moment: Moment) -> None:
    """A gateway dies in the instant in which Redis has answered and the shopper has not been."""
    name = moment.rng.choice(GATEWAYS)
    await stack.roles[name].stop()
    await stack.launch(name, dies_at=("reservation.pipe:Pipe.answered", moment.rng.randrange(60, 200)))
    moment.begins()
    status = await stack.roles[name].ends()
    moment.expect(status == -signal.SIGKILL, f"{name} died with an answer in its hands")
    await stack.launch(name)


@fault()
async def gateway_stopped(stack: Stack, moment: Moment) -> None:
    """A gateway stands still for 10 s, with requests under way and connections open, and goes on."""
    name = moment.rng.choice(GATEWAYS)
    stack.roles[name].send(signal.SIGSTOP)
    await asyncio.sleep(STOP_SECONDS)
    stack.roles[name].send(signal.SIGCONT)


@fault(setting=Setting(proxies=frozenset({"redis", "gateway"})), quick=True)
async def reply_lost(stack: Stack, moment: Moment) -> None:
    """Scripts have run and the gateway never hears of it; requests were answered and the shopper never is."""
    for _ in range(6):
        stack.proxies["redis"].cut_replies(2, of=b"EVALSHA")
        stack.proxies["gateway"].cut_replies(moment.rng.randrange(5, 15), of=b"POST")
        await asyncio.sleep(0.25)
    stack.proxies["redis"].cut_replies(0)
    stack.proxies["gateway"].cut_replies(0)
    for name, proxy in stack.proxies.items():
        moment.expect(proxy.cut > 0, f"{proxy.cut} replies of {name} cut")
        proxy.cut = 0


@fault()
async def relay_killed_before_forgetting(stack: Stack, moment: Moment) -> None:
    """A relay dies between RabbitMQ's confirm and the outbox, twice: what it published is published again."""
    await _dies(stack, moment, "relay", "reservation.outbox:Outbox.done")


@fault(quick=True)
async def worker_killed_before_acknowledging(stack: Stack, moment: Moment) -> None:
    """A worker dies between PostgreSQL's commit and its acknowledgement, twice: all that comes again."""
    await _dies(stack, moment, "worker", "settlement.rabbit:RabbitBatch.done")


async def _dies(stack: Stack, moment: Moment, role: str, point: str) -> None:
    await stack.roles[role].kill()
    for _ in range(2):
        await stack.launch(role, dies_at=(point, moment.rng.randrange(1, 6)))
        status = await stack.roles[role].ends()
        moment.expect(status == -signal.SIGKILL, f"the {role} died at {point}")
    await stack.launch(role)


@fault()
async def clocks_off(stack: Stack, moment: Moment) -> None:
    """One gateway's clock is 5 minutes ahead and the other's behind; the worker's is one, the sweeper's the
    other."""
    ahead = {name: moment.rng.choice((1, -1)) for name in (GATEWAYS[0], "worker")}
    off = {**ahead, GATEWAYS[1]: -ahead[GATEWAYS[0]], "sweeper": -ahead["worker"]}
    for name, sign in off.items():
        await stack.roles[name].stop()
        await stack.launch(name, environment=_faketime(sign * CLOCK_SECONDS))
    moment.seen.append(", ".join(f"{name} {sign * CLOCK_SECONDS:+} s" for name, sign in off.items()))
    await asyncio.sleep(4.0)
    for name in off:
        await stack.relaunch(name)


def _faketime(seconds: int) -> dict[str, str]:
    """What makes a process' clock go wrong by so much. Raises Missed."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        raise Missed("libfaketime is not installed; scripts/install-servers does that")
    return {"LD_PRELOAD": str(found), "FAKETIME": f"{seconds:+}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@fault(no_malfunction=True)
async def rolling_restart(stack: Stack, moment: Moment) -> None:
    """Every role is restarted, one after the other, at peak: a maintenance, and no accident. Nobody sees an
    error but `overloaded`, and who watches an event stream is told to come back."""
    async with aiohttp.ClientSession() as session:
        watching = [asyncio.create_task(_watch(session, stack.url)) for _ in range(STREAMS)]
        await asyncio.sleep(0.5)
        for name in (*GATEWAYS, "relay", "worker", "sweeper"):
            await stack.relaunch(name)
        ends = await asyncio.gather(*watching)
    moment.expect(all("retry:" in end for end in ends), f"{len(ends)} event streams ended with `retry`")


async def _watch(session: aiohttp.ClientSession, url: str) -> str:
    """What an event stream says until it ends."""
    async with session.get(f"{url}/v1/campaigns") as answer:
        campaign = (await answer.json())["campaigns"][-1]["id"]
    said = b""
    async with session.get(f"{url}/v1/campaigns/{campaign}/events") as stream:
        async for part in stream.content.iter_any():
            said += part
    return said.decode()
