"""After the last shopper: what came of every request, what the books say, and whether all is well."""

from __future__ import annotations

from typing import Any

from locust.env import Environment
from locust.runners import WorkerRunner

from loadtests.audit import audit_lines, audit_says_less
from loadtests.checks import CONFIRMED
from loadtests.merchant import Merchant, MerchantError
from loadtests.opening import on_sale
from loadtests.tally import TALLY


def conclude(environment: Environment, **_: Any) -> None:
    """Listens to test_stop. The master concludes, or a Locust that is alone; it sets the exit code."""
    sale = on_sale(environment)
    if isinstance(environment.runner, WorkerRunner) or sale is None:
        return
    wrong = _requests_wrong(environment)
    lines = ["", *TALLY.table(), ""]
    if sale.service_key:
        try:
            audit = Merchant(environment.host or "", sale.service_key).audit(sale.campaign)
        except MerchantError as error:
            lines.append(f"audit: {error}")
            wrong.append("no audit")
        else:
            lines += audit_lines(audit)
            if not audit["ok"]:
                wrong.append("an invariant is violated")
            wrong += audit_says_less(audit, TALLY.of("pay check", CONFIRMED))
    else:
        lines.append("audit: left out, for there is no --service-key")
    lines.append(f"load test: failed: {'; '.join(wrong)}" if wrong else "load test: passed")
    print("\n".join(lines), flush=True)
    environment.process_exit_code = 1 if wrong else 0


def _requests_wrong(environment: Environment) -> list[str]:
    failures = environment.stats.total.num_failures
    errors = len(environment.runner.exceptions) if environment.runner else 0
    wrong = []
    if not environment.stats.total.num_requests:
        wrong.append("no request was made")
    if failures:
        wrong.append(f"{failures} requests failed")
    if errors:
        wrong.append(f"{errors} errors in the load test itself")
    return wrong
