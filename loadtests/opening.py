"""Before the first shopper: the secrets, and the sale."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import gevent
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import WorkerRunner

from loadtests.documents import HOT, sale_document
from loadtests.merchant import Merchant, MerchantError
from loadtests.monitor import Monitor
from loadtests.options import OptionError, Options
from loadtests.scenarios import restock_at, windows_of
from loadtests.tally import TALLY
from loadtests.timeline import TIMELINE, width_of
from loadtests.tokens import SecretMissing, find_secrets

LATE_SECONDS = 120
"""The monitor goes on for so long after the last stage at most."""


@dataclass(frozen=True, slots=True)
class Sale:
    """What a test shops in, and the secrets that it takes."""

    campaign: str
    jwt_secret: str
    service_key: str | None


_monitors: dict[int, Monitor] = {}
"""By environment: of the test that runs."""


def open_sale(environment: Environment, **_: Any) -> None:
    """Listens to test_start, on every node. The master opens, or a Locust that is alone."""
    TALLY.clear()
    try:
        options = Options.of(environment)
    except OptionError as error:
        _give_up(environment, str(error))
    TIMELINE.begin(width_of(sum(stage.seconds for stage in options.stages)))
    if isinstance(environment.runner, WorkerRunner):
        return
    _announce(environment, None)
    if not environment.host:
        _give_up(environment, "--host is not given")
    environment.host = environment.host.rstrip("/")  # paths begin with one
    if not environment.host.startswith(("http://", "https://")):
        _give_up(environment, f"--host: {environment.host} begins with neither http:// nor https://")
    said = ""
    try:
        jwt_secret, service_key = find_secrets(options)
        campaign = options.campaign
        merchant = Merchant(environment.host, service_key)
        if options.create_campaign and service_key:
            campaign = campaign or f"load-{uuid.uuid4().hex[:12]}"
            opens_at = _schedule(merchant, campaign, options, environment)
            said = f"{campaign} opens at {opens_at:%H:%M:%S} UTC with {options.goods.stock} units"
    except (SecretMissing, MerchantError) as error:
        _give_up(environment, str(error))
    if not campaign:
        _give_up(environment, "--no-create-campaign needs a --campaign")
    if options.scenario.kind == "trade_in" and not service_key:
        _give_up(environment, "--service-key: is not given, and trade-ins need their main orders reported")
    _announce(environment, Sale(campaign, jwt_secret, service_key))
    _watch(environment, options, merchant, campaign)
    if said:  # last: who is told to end now has something to conclude
        print(said, flush=True)


def on_sale(environment: Environment) -> Sale | None:
    """What this test shops in, on every node; None when it could not be opened."""
    found = getattr(environment.parsed_options, "on_sale", None)
    return Sale(**found) if found else None


def monitor_of(environment: Environment) -> Monitor | None:
    """Who has looked at the sale of this test meanwhile."""
    return _monitors.get(id(environment))


def _announce(environment: Environment, sale: Sale | None) -> None:
    # The master sends its options to the workers, as plain values. What is put there goes along.
    vars(environment.parsed_options)["on_sale"] = asdict(sale) if sale else None


def _schedule(merchant: Merchant, campaign: str, options: Options, environment: Environment) -> datetime:
    """Have the sale open when the shape's warm-up is over. What counts is the service's clock, not ours."""
    kind = options.scenario.kind
    windows = windows_of(kind, options.stages)

    def document(begins_at: datetime) -> dict[str, Any]:
        return sale_document(campaign, kind, options.goods, windows, begins_at)

    server_time = merchant.put(document(datetime.now(UTC)))
    begins_at = server_time - timedelta(seconds=_run_time_s(environment))
    merchant.put(document(begins_at))
    return begins_at + timedelta(seconds=windows.opens)


def _watch(environment: Environment, options: Options, merchant: Merchant, campaign: str) -> None:
    at = restock_at(options.scenario, options.stages)
    owns = options.create_campaign and at is not None
    monitor = Monitor(
        merchant,
        campaign,
        sum(stage.seconds for stage in options.stages) + LATE_SECONDS,
        lambda: _run_time_s(environment),
        restock=(at or 0, HOT, options.goods.stock) if owns else None,
        began_s=time.time() - _run_time_s(environment),
    )
    _monitors[id(environment)] = monitor
    monitor.start()


def _run_time_s(environment: Environment) -> float:
    shape = environment.shape_class
    return float(shape.get_run_time()) if shape else 0.0  # type: ignore[no-untyped-call]


def nothing_on_sale(environment: Environment) -> None:
    """The test cannot start, so nobody shops, and nothing is concluded."""
    _announce(environment, None)
    environment.process_exit_code = 1  # Locust alone would exit with 0


def _give_up(environment: Environment, why: str) -> NoReturn:
    nothing_on_sale(environment)
    # Locust says why. It is no error of a greenlet, of which gevent would print the traceback.
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, StopTest)
    raise StopTest(f"The load test cannot start: {why}") from None
