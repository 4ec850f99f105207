"""What this load test adds to Locust's command line, to its environment variables and to its page."""

from __future__ import annotations

from argparse import ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.scenarios import FLASH_SALE, GOODS, SCENARIOS, SIZES, Goods, Scenario
from loadtests.stages import Sizes, Stage
from loadtests.thresholds import Limits
from loadtests.weights import parse_weights, weights_of

LIMIT_OPTIONS = {
    "max_failures_share": "failures_share",
    "max_overloaded_share": "overloaded_share",
    "p99_ms": "p99_ms",
    "min_requests_per_s": "requests_per_s",
}
"""The options of thresholds, and what each sets in Limits."""

FROM_ONE = ("peak_users", "steps", "step_seconds", "per_user", "hold_seconds")


class OptionError(Exception):
    """An option cannot be. The message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a test, as they are at this moment; what is left out is the scenario's."""

    scenario: Scenario
    sizes: Sizes
    goods: Goods
    limits: Limits
    weights: Mapping[str, float]
    campaign: str
    create_campaign: bool
    data_dir: str
    jwt_secret: str | None
    service_key: str | None
    report: str

    @classmethod
    def of(cls, environment: Environment) -> Options:
        """Raises OptionError; Locust's page sends whatever was typed."""
        given = vars(environment.parsed_options)
        scenario = SCENARIOS.get(given["scenario"])
        if scenario is None:
            raise OptionError(f"--scenario: must be one of {', '.join(SCENARIOS)}")
        sizes = {name: int(value) for name in SIZES if (value := _number(given, name)) is not None}
        goods = {name: int(value) for name in GOODS if (value := _number(given, name)) is not None}
        if not all(value >= 1 for name, value in {**sizes, **goods}.items() if name in FROM_ONE):
            raise OptionError(f"{', '.join(FROM_ONE)}: must be at least 1")
        limits = {
            limit: value
            for option, limit in LIMIT_OPTIONS.items()
            if (value := _number(given, option)) is not None
        }
        try:
            weights = weights_of(scenario.kind, scenario.weights, parse_weights(given["weights"] or ""))
        except ValueError as error:
            raise OptionError(f"--weights: {error}") from None
        return cls(
            scenario,
            replace(scenario.sizes, **sizes),
            replace(scenario.goods, **goods),
            replace(scenario.limits, **limits),
            weights,
            given["campaign"],
            given["create_campaign"],
            given["data_dir"],
            given["jwt_secret"],
            given["service_key"],
            given["report"],
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.scenario.shape(self.sizes)


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Listens to init_command_line_parser."""

    def add(flag: str, **settings: Any) -> None:
        """Each option is an environment variable as well: --peak-users is LOADTEST_PEAK_USERS."""
        variable = "LOADTEST_" + flag.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(flag, **{"env_var": variable, **settings})

    def add_number(flag: str, least: int, about: str) -> None:
        add(flag, type=_at_least(least), default=None, help=f"{about} The scenario's, if left out.")

    add(
        "--scenario",
        choices=list(SCENARIOS),
        default=FLASH_SALE.name,
        help="What is sold, and in what shape shoppers come.",
    )
    add("--campaign", default="", help="The campaign to shop in. Empty: a new one for each test.")
    add(
        "--create-campaign",
        action=BooleanOptionalAction,
        default=True,
        help="Create the campaign, to open when the warm-up is over. Otherwise it must be there.",
    )
    add("--weights", type=_weights, default="", help="What shoppers do, as pay=6,give_up=1; 0 is never.")
    add_number("--stock", 0, "Units on sale.")
    add_number("--per-user", 1, "Units that one shopper may have.")
    add_number("--hold-seconds", 1, "Unpaid reservations expire after so long.")
    add_number("--peak-users", 1, "Shoppers at the peak.")
    add_number("--warm-up-seconds", 0, "The trickle before the opening.")
    add_number("--spike-seconds", 0, "Everybody is there.")
    add_number("--plateau-seconds", 0, "What comes after the spike; of a soak, the whole of it.")
    add_number("--gap-seconds", 0, "Between a presale's windows.")
    add_number("--balance-seconds", 0, "A presale's balance window.")
    add_number("--second-seconds", 0, "The second of two peaks.")
    add_number("--tail-seconds", 0, "The campaign is over, and few remain.")
    add_number("--steps", 1, "Of a ramp.")
    add_number("--step-seconds", 2, "Of each.")
    limit = {"type": _from_zero, "default": None}
    add("--max-failures-share", help="Answers outside the contract, of all; 0 unless said.", **limit)
    add("--max-overloaded-share", help="Requests told to come back later, of all; 0.05 unless said.", **limit)
    add("--p99-ms", help="Of reserving, as shoppers see it. The scenario's, if left out.", **limit)
    add("--min-requests-per-s", help="In the mean of the whole run; none unless said.", **limit)
    add("--report", default="", help="Write an HTML report to this file.")
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


def _number(given: Mapping[str, Any], option: str) -> float | None:
    """An option's number. Locust's page sends text, and nothing as an empty one."""
    value = given[option]
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise OptionError(f"--{option.replace('_', '-')}: {value!r} is no number from 0")
    return number


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ArgumentTypeError(f"must be at least {least}")
        return number

    parse.__name__ = "number"  # argparse names it when int() refuses
    return parse


def _from_zero(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError("must be a number from 0")
    return number


_from_zero.__name__ = "number"


def _weights(text: str) -> str:
    try:
        parse_weights(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text  # as it stands: the master sends its options to the workers as plain values
