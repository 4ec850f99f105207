"""What may happen to the network between the parts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from loadtests.faults.fault import Moment, fault
from loadtests.faults.network import lossy
from loadtests.faults.proxy import Weather
from loadtests.faults.stack import Setting, Stack

BEHIND = Setting(proxies=frozenset({"redis", "rabbit", "postgres"}))
ALL = Setting(proxies=frozenset({"redis", "rabbit", "postgres", "gateway"}))
LOSSY = replace(ALL, own_network=True)
LOST_PERCENT = 1


@fault(setting=LOSSY, quick=True)
async def network_lossy(stack: Stack, moment: Moment) -> None:
    """The kernel drops 1 % of all TCP packets between all parts, and what is sent is up to 100 ms late."""
    with lossy(LOST_PERCENT) as losses:
        await _weather(stack, Weather(jitter_s=0.1), 4.0)
    moment.expect(losses.packets > 0, f"{losses.packets} packets were dropped by the kernel")
    moment.seen.append(f"{losses.segments_resent} segments were sent again")


@fault(setting=ALL)
async def network_slicing(stack: Stack, moment: Moment) -> None:
    """Whatever is sent arrives in pieces of 7 bytes."""
    await _weather(stack, Weather(slice_bytes=7), 2.0)


@fault(setting=ALL)
async def network_resetting(stack: Stack, moment: Moment) -> None:
    """All connections between all parts are reset, ten times in two seconds."""
    count = 0
    for _ in range(10):
        count += sum(proxy.reset() for proxy in stack.proxies.values())
        await asyncio.sleep(0.2)
    moment.expect(count > 0, f"{count} connections were reset")


@fault(setting=BEHIND)
async def network_black_hole(stack: Stack, moment: Moment) -> None:
    """For 7 s nothing passes between the roles and Redis, RabbitMQ and PostgreSQL, and nobody is told."""
    await _weather(stack, Weather(black_hole=True), 7.0)


async def _weather(stack: Stack, weather: Weather, seconds: float) -> None:
    for proxy in stack.proxies.values():
        proxy.weather = weather
    await asyncio.sleep(seconds)
    for proxy in stack.proxies.values():
        proxy.clear()
