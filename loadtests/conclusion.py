"""After the last shopper: what came of every request, what was kept, what the books say, and the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from locust.env import Environment
from locust.runners import WorkerRunner

from loadtests.audit import audit_lines, audit_says_less
from loadtests.checks import CONFIRMED, TAKEN_BACK
from loadtests.merchant import Merchant, MerchantError
from loadtests.opening import Sale, monitor_of, on_sale
from loadtests.options import Options
from loadtests.report import Run, write_report
from loadtests.tally import TALLY
from loadtests.thresholds import Checked, Climb, check, climb
from loadtests.timeline import TIMELINE

SLACK_SECONDS = 2.0
"""By which a run may be measured shorter than it was to be."""


def conclude(environment: Environment, **_: Any) -> None:
    """Listens to test_stop. The master concludes, or a Locust that is alone; it sets the exit code."""
    sale = on_sale(environment)
    if isinstance(environment.runner, WorkerRunner) or sale is None:
        return
    ended_s = time.time()
    options = Options.of(environment)
    monitor = monitor_of(environment)
    began_s = monitor.began_s if monitor else ended_s
    seconds = ended_s - began_s
    if monitor:
        monitor.stop()
    wrong = _requests_wrong(environment) + (monitor.failed if monitor else [])
    climbed, checked = _thresholds(options, began_s, ended_s)
    planned_s = sum(stage.seconds for stage in options.stages)
    if seconds < planned_s - SLACK_SECONDS and not (climbed and climbed.broke):
        wrong.append(f"stopped after {seconds:.0f} of {planned_s} s")
    wrong += [f"{one.name}: {one.value}" for one in checked if not one.kept]
    if climbed and climbed.broke and climbed.held is None:
        wrong.append("not even the first step held")
    audit, said, unaudited = _audit(environment, sale)
    wrong += unaudited
    verdict = f"load test: failed: {'; '.join(wrong)}" if wrong else "load test: passed"
    thresholds = [*map(str, checked), *(climbed.lines() if climbed else [])]
    print("\n".join(["", *TALLY.table(), "", *thresholds, "", *said, verdict]), flush=True)
    environment.process_exit_code = 1 if wrong else 0
    if options.report:
        run = Run(
            scenario=options.scenario.name,
            about=options.scenario.about,
            host=environment.host or "",
            campaign=sale.campaign,
            began_s=began_s,
            seconds=seconds,
            width_s=TIMELINE.width_s,
            rows=TIMELINE.rows(),
            stock=monitor.stock if monitor else {},
            stages=options.stages,
            options=_shown(options),
            checked=checked,
            climbed=climbed.lines() if climbed else [],
            outcomes=TALLY.rows(),
            audit=audit,
            verdict=verdict,
            passed=not wrong,
        )
        try:
            print(f"report: {write_report(run, Path(options.report))}", flush=True)
        except OSError as error:
            print(f"report: {options.report}: cannot be written: {error.strerror}", flush=True)
            environment.process_exit_code = 1


def _requests_wrong(environment: Environment) -> list[str]:
    errors = len(environment.runner.exceptions) if environment.runner else 0
    wrong = []
    if not environment.stats.total.num_requests:
        wrong.append("no request was made")
    if errors:
        wrong.append(f"{errors} errors in the load test itself")
    return wrong


def _thresholds(options: Options, began_s: float, ended_s: float) -> tuple[Climb | None, list[Checked]]:
    """How far a ramp got, and what was kept. What a ramp is to find out is no failure of it."""
    rows = TIMELINE.rows()
    if not options.scenario.climbs:
        return None, check(rows, options.limits, ended_s - began_s)
    found = climb(rows, options.stages, options.limits, began_s, ended_s)
    contract, *_ = check(rows, options.limits, ended_s - began_s)
    return found, [contract]


def _audit(environment: Environment, sale: Sale) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """The service's audit, its lines, and what is wrong."""
    if not sale.service_key:
        return None, ["audit: left out, for there is no --service-key"], []
    try:
        audit = Merchant(environment.host or "", sale.service_key).audit(sale.campaign)
    except MerchantError as error:
        return None, [f"audit: {error}"], ["no audit"]
    wrong = [] if audit["ok"] else ["an invariant is violated"]
    confirmed = TALLY.of("pay check", CONFIRMED) - TALLY.of("cancel order", TAKEN_BACK)
    return audit, audit_lines(audit), wrong + audit_says_less(audit, confirmed)


def _shown(options: Options) -> dict[str, str]:
    """What a report says of how it was run; no secret."""
    weights = ", ".join(f"{habit} {weight:g}" for habit, weight in options.weights.items())
    goods = options.goods
    return {
        "shoppers at the peak": str(options.sizes.peak_users),
        "units": str(goods.stock),
        "per user": str(goods.per_user),
        "hold": f"{goods.hold_seconds} s",
        "weights": weights,
    }
