"""Draws every dashboard from a real run: `python -m tests.monitoring.draw docs/dashboards`.

A sale opens and is sold out, others go on beside it, and for a while PostgreSQL is away.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from monitoring.pictures import Window, write
from tests.monitoring.crowd import FLASH, shopping
from tests.monitoring.faults import book_down
from tests.monitoring.watched import watched

BEFORE_SECONDS, AFTER_SECONDS = 40.0, 40.0


async def draw(directory: Path) -> None:
    async with watched() as deployment:
        since = time.time()
        async with shopping(deployment) as crowd:
            await asyncio.sleep(BEFORE_SECONDS)
            async with book_down(deployment, crowd):
                pass
            await asyncio.sleep(AFTER_SECONDS)
        window = Window(since, time.time())
        await asyncio.to_thread(
            write, deployment.prometheus.url, window, FLASH, "phone", directory, rate_interval="5s"
        )


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1])))
