"""Nobody is cut off in the middle of a request."""

from __future__ import annotations

from typing import Any

from locust.env import Environment

STOP_SECONDS_MAX = 10.0


def let_shoppers_finish(environment: Environment, **_: Any) -> None:
    """Listens to init. Without --stop-timeout, Locust would kill shoppers who wait for an answer.

    What the service then grants, nobody hears of; the books are right, and cannot be compared.
    """
    environment.stop_timeout = environment.stop_timeout or STOP_SECONDS_MAX
