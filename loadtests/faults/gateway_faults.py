"""What may happen to a gateway."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

from loadtests.faults.fault import Moment, fault
from loadtests.faults.shoppers import Load
from loadtests.faults.stack import GATEWAYS, Setting, Stack

RESTART_SECONDS = 0.3
"""What a supervisor takes to notice."""


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
    status = await stack.roles[name].ended()
    moment.expect(status == -signal.SIGKILL, f"{name} died with an answer in its hands")
    await stack.launch(name)


@fault(load=replace(Load(), seconds=6.0))
async def gateway_stopped(stack: Stack, moment: Moment) -> None:
    """A gateway stands still for 10 s, with requests under way and connections open, and goes on."""
    name = moment.rng.choice(GATEWAYS)
    stack.roles[name].send(signal.SIGSTOP)
    await asyncio.sleep(10.0)
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
