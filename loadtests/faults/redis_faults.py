"""What may happen to Redis."""

from __future__ import annotations

import asyncio

from loadtests.faults.fault import Moment, fault
from loadtests.faults.stack import Setting, Stack

EVERYSEC = Setting(fsync="everysec")
DOWN_SECONDS = 0.5


async def _kill_and_start(stack: Stack) -> None:
    await stack.redis.kill()
    await asyncio.sleep(DOWN_SECONDS)
    await stack.redis.start()


@fault(quick=True)
async def redis_killed_always(stack: Stack, moment: Moment) -> None:
    """Redis gets SIGKILL under `appendfsync always`, and starts again on its log."""
    await _kill_and_start(stack)


@fault(setting=EVERYSEC)
async def redis_killed_everysec(stack: Stack, moment: Moment) -> None:
    """Redis gets SIGKILL under `appendfsync everysec`, and starts again: the system has what it wrote."""
    await _kill_and_start(stack)
