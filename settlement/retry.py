"""Waiting for a part that is away: again and again, further and further apart, never in step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

WAIT_SECONDS_MIN = 0.1
"""At most, after the first failure; twice as long at most after each further one."""
WAIT_SECONDS_MAX = 5.0
_DOUBLED_MAX = 10
T = TypeVar("T")
_log = structlog.get_logger(__name__)


async def patiently(
    attempt: Callable[[], Awaitable[T]],
    away: type[Exception],
    *,
    on_failure: Callable[[], None] | None = None,
) -> T:
    """What `attempt` gives, tried until it is no longer `away`. Any other exception is raised."""
    failures = 0
    while True:
        try:
            return await attempt()
        except away as error:
            failures += 1
            if on_failure is not None:
                on_failure()
            _log.warning("waiting", attempt=failures, error=f"{type(error).__name__}: {error}")
        wait_max = min(WAIT_SECONDS_MIN * 2 ** min(failures - 1, _DOUBLED_MAX), WAIT_SECONDS_MAX)
        await asyncio.sleep(random.uniform(0, wait_max))  # noqa: S311  (nothing hangs on it but the load)
