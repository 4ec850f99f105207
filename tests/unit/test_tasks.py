"""A task that misses a cancellation is told again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from reservation.tasks import end


async def test_a_task_that_forgets_a_cancellation_ends_all_the_same() -> None:
    async def forgetful() -> None:
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(task)
    assert task.cancelled()
