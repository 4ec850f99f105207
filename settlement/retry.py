"""Waiting for a part that is away: again and again, further and further apart, never in step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

WAIT_SECONDS_MAX = 5.0
T = TypeVar("T")
_log = structlog.get_logger(__name__)


async def patiently(
    attempt: Callable[[], Awaitable[T]],
    away: type[Exception],
    *,
    on_failure: Callable[[], None] | None = None,
) -> T:
    """What `attempt` gives, tried until it is no longer `away`. Any other exception is raised."""

    def tell(state: RetryCallState) -> None:
        if on_failure is not None:
            on_failure()
        error = state.outcome.exception() if state.outcome else None
        _log.warning("waiting", attempt=state.attempt_number, error=f"{type(error).__name__}: {error}")

    async def once() -> T:  # tenacity awaits coroutine functions only, and a lambda is none
        return await attempt()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(away),
        wait=wait_random_exponential(multiplier=0.1, max=WAIT_SECONDS_MAX),
        before_sleep=tell,
        reraise=True,
    )
    result: T = await retrying(once)
    return result
