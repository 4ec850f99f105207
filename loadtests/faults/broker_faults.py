"""What may happen to RabbitMQ."""

from __future__ import annotations

import asyncio
import signal

import aio_pika
import orjson

from loadtests.faults.fault import Moment, fault
from loadtests.faults.stack import Setting, Stack
from settlement.rabbit import DEAD, EVENTS

ALARM_SECONDS = 4.0
NODE_SECONDS = 5.0
THREE = Setting(brokers=3)


@fault()
async def rabbit_killed(stack: Stack, moment: Moment) -> None:
    """The only RabbitMQ node gets SIGKILL, and is started again on its data."""
    await stack.rabbit.kill()
    await stack.rabbit.start()


@fault()
async def rabbit_restarted(stack: Stack, moment: Moment) -> None:
    """The only RabbitMQ node is restarted in an orderly way."""
    await stack.rabbit.kill(signal.SIGTERM)
    await stack.rabbit.start()


@fault(setting=THREE)
async def rabbit_one_of_three_lost(stack: Stack, moment: Moment) -> None:
    """One of three RabbitMQ nodes is killed, and comes back after 5 s: two are a majority."""
    await _lose(stack, moment, 1)


@fault(setting=THREE)
async def rabbit_two_of_three_lost(stack: Stack, moment: Moment) -> None:
    """Two of three RabbitMQ nodes are killed, and come back after 5 s: until then nothing is confirmed."""
    await _lose(stack, moment, 2)


async def _lose(stack: Stack, moment: Moment, count: int) -> None:
    lost = moment.rng.sample(stack.brokers, count)
    for node in lost:
        await node.kill()
    moment.expect(sum(node.running for node in stack.brokers) == 3 - count, f"{count} of 3 nodes were killed")
    await asyncio.sleep(NODE_SECONDS)
    for node in lost:
        node.begin()
    for node in lost:
        await node.wait_ready()


@fault()
async def rabbit_memory_alarm(stack: Stack, moment: Moment) -> None:
    """RabbitMQ is beyond its memory watermark and takes nothing for a while."""
    await asyncio.to_thread(stack.rabbit.control, "set_vm_memory_high_watermark", "0.00001")
    await asyncio.sleep(ALARM_SECONDS)
    alarms = await asyncio.to_thread(stack.rabbit.control, "list_connections", "state")
    await asyncio.to_thread(stack.rabbit.control, "set_vm_memory_high_watermark", "0.4")
    moment.expect("block" in alarms, "connections were blocked")


@fault(quick=True)
async def poison_message(stack: Stack, moment: Moment) -> None:
    """Messages that are no JSON, no events, and events that the book refuses are in the queue among others:
    they are set aside, and nothing else is."""
    poison = [
        b"\x00 not JSON",
        orjson.dumps({"not": "an array"}),
        orjson.dumps([{"type": "reservation.reserved", "id": "no-such.thing"}]),
        orjson.dumps([{"type": "reservation.reserved", "id": "x\u0000y", "record": {}, "data": {}}]),
        orjson.dumps([{}]),
    ]
    connection = await aio_pika.connect(stack.rabbit.url)
    async with connection, connection.channel() as channel:
        dead = await channel.declare_queue(DEAD, passive=True)
        before = dead.declaration_result.message_count or 0
        for body in poison * 4:
            await channel.default_exchange.publish(aio_pika.Message(body), routing_key=EVENTS)
            await asyncio.sleep(0.02)
        count = before
        for _ in range(200):
            again = await channel.declare_queue(DEAD, passive=True)
            count = again.declaration_result.message_count or 0
            if count - before >= len(poison) * 4:
                break
            await asyncio.sleep(0.05)
        await dead.purge()
    moment.expect(count - before == len(poison) * 4, f"{count - before} messages were set aside")
