"""Before the first shopper: the secrets, and the sale."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from locust.env import Environment
from locust.exception import StopTest
from locust.runners import WorkerRunner

from loadtests.merchant import Merchant, MerchantError
from loadtests.options import Options
from loadtests.tally import TALLY
from loadtests.tokens import SecretMissing, find_secrets


@dataclass(frozen=True, slots=True)
class Sale:
    """What a test shops in, and the secrets that it takes."""

    campaign: str
    jwt_secret: str
    service_key: str | None


def open_sale(environment: Environment, **_: Any) -> None:
    """Listens to test_start, on every node. The master opens, or a Locust that is alone."""
    TALLY.clear()
    if isinstance(environment.runner, WorkerRunner):
        return
    _announce(environment, None)
    options = Options.of(environment)
    if not environment.host:
        _give_up(environment, "--host is not given")
    try:
        jwt_secret, service_key = find_secrets(options)
        campaign = options.campaign
        if options.create_campaign and service_key:
            campaign = campaign or f"load-{uuid.uuid4().hex[:12]}"
            opens_at = _schedule(Merchant(environment.host, service_key), campaign, options, environment)
            print(f"{campaign} opens at {opens_at:%H:%M:%S} UTC with {options.stock} units", flush=True)
    except (SecretMissing, MerchantError) as error:
        _give_up(environment, str(error))
    if not campaign:
        _give_up(environment, "--no-create-campaign needs a --campaign")
    _announce(environment, Sale(campaign, jwt_secret, service_key))


def on_sale(environment: Environment) -> Sale | None:
    """What this test shops in, on every node; None when it could not be opened."""
    found = getattr(environment.parsed_options, "on_sale", None)
    return Sale(**found) if found else None


def _announce(environment: Environment, sale: Sale | None) -> None:
    # The master sends its options to the workers, as plain values. What is put there goes along.
    vars(environment.parsed_options)["on_sale"] = asdict(sale) if sale else None


def _schedule(merchant: Merchant, campaign: str, options: Options, environment: Environment) -> datetime:
    """Have the sale open when the shape's warm-up is over. What counts is the service's clock, not ours."""
    warm_up = timedelta(seconds=options.warm_up_seconds)
    server_time = merchant.put_sale(campaign, options, datetime.now(UTC) + warm_up)
    shape = environment.shape_class
    running_s = shape.get_run_time() if shape else 0.0  # type: ignore[no-untyped-call]
    opens_at = server_time + warm_up - timedelta(seconds=running_s)
    merchant.put_sale(campaign, options, opens_at)
    return opens_at


def _give_up(environment: Environment, why: str) -> NoReturn:
    environment.process_exit_code = 1  # StopTest alone would exit with 0
    raise StopTest(f"The load test cannot start: {why}") from None
