"""Nobody is cut off in the middle of a request, and no worker stands still at a stage's beginning."""

from __future__ import annotations

import functools
from typing import Any

from locust import argument_parser
from locust.env import Environment

STOP_SECONDS_MAX = 10.0


def let_shoppers_finish(environment: Environment, **_: Any) -> None:
    """Listens to init. Without --stop-timeout, Locust would kill shoppers who wait for an answer.

    What the service then grants, nobody hears of; the books are right, and cannot be compared.
    """
    environment.stop_timeout = environment.stop_timeout or STOP_SECONDS_MAX


def remember_defaults(environment: Environment, **_: Any) -> None:
    """Listens to init. With each message that changes how many shoppers there are, a worker of Locust 2.47
    makes its whole command line anew for each of a hundred options: for seconds nobody shops, and the master
    takes it for dead. What comes out is always the same."""
    argument_parser.default_args_dict = functools.cache(argument_parser.default_args_dict)
