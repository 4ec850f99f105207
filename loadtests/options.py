"""What this load test adds to Locust's command line, to its environment variables and to its page."""

from __future__ import annotations

from argparse import ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.stages import Stage, opening_spike


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a test, as they are at this moment."""

    campaign: str
    create_campaign: bool
    stock: int
    per_user: int
    hold_seconds: int
    peak_users: int
    warm_up_seconds: int
    spike_seconds: int
    plateau_seconds: int
    tail_seconds: int
    data_dir: str
    jwt_secret: str | None
    service_key: str | None

    @classmethod
    def of(cls, environment: Environment) -> Options:
        given = vars(environment.parsed_options)
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    @property
    def stages(self) -> tuple[Stage, ...]:
        return opening_spike(
            peak_users=self.peak_users,
            warm_up_seconds=self.warm_up_seconds,
            spike_seconds=self.spike_seconds,
            plateau_seconds=self.plateau_seconds,
            tail_seconds=self.tail_seconds,
        )


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Listens to init_command_line_parser."""

    def add(flag: str, **settings: Any) -> None:
        """Each option is an environment variable as well: --peak-users is LOADTEST_PEAK_USERS."""
        variable = "LOADTEST_" + flag.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(flag, **{"env_var": variable, **settings})

    add("--campaign", default="", help="The campaign to shop in. Empty: a new one for each test.")
    add(
        "--create-campaign",
        action=BooleanOptionalAction,
        default=True,
        help="Create the campaign, to open when the warm-up is over. Otherwise it must be there.",
    )
    add("--stock", type=_at_least(0), default=20, help="Units on sale; far fewer than shoppers.")
    add("--per-user", type=_at_least(1), default=1, help="Units that one shopper may have.")
    add("--hold-seconds", type=_at_least(1), default=10, help="Unpaid reservations expire after so long.")
    add("--peak-users", type=_at_least(1), default=200, help="Shoppers at the opening.")
    add("--warm-up-seconds", type=_at_least(0), default=10, help="The trickle before the opening.")
    add("--spike-seconds", type=_at_least(0), default=20, help="Everybody is there.")
    add("--plateau-seconds", type=_at_least(0), default=30, help="Half of them stay.")
    add("--tail-seconds", type=_at_least(0), default=20, help="The campaign is over, and few remain.")
    add(
        "--data-dir",
        env_var="DOORBUSTER_DATA_DIR",
        default=".doorbuster",
        help="Where `doorbuster up` keeps its data: both secrets are there, unless they are given here.",
    )
    # Locust's page would send these to every browser.
    secret = {"default": None, "include_in_web_ui": False}
    add("--jwt-secret", env_var="DOORBUSTER_JWT_SECRET", help="Signs the shoppers' tokens (HS256).", **secret)
    add("--service-key", env_var="DOORBUSTER_SERVICE_KEY", help="Creates the campaign; audits it.", **secret)


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ArgumentTypeError(f"must be at least {least}")
        return number

    parse.__name__ = "number"  # argparse names it when int() refuses
    return parse
