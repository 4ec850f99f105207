"""A result, as a person reads it. Pure."""

from __future__ import annotations

from loadtests.openloop.histogram import PERCENTILES, Histogram
from loadtests.openloop.outcomes import Outcome
from loadtests.openloop.result import Result


def summary(result: Result) -> list[str]:
    lines = [
        f"{result.scheduled} arrivals in {result.seconds:g} s, {result.rate_scheduled:.1f}/s; "
        f"sent {result.rate_sent:.1f}/s on {result.connections_peak} connections at most "
        f"({result.connections_opened} opened)",
        "",
    ]
    whys = [f"{fault.name.lower()} {count}" for fault, count in result.faults.items()]
    for outcome, count in result.outcomes.items():
        share = count / result.scheduled if result.scheduled else 0.0
        lines.append(f"{outcome:<12}{count:>10}{share:>9.2%}")
    statuses = "  ".join(f"{status}: {count}" for status, count in result.statuses.items())
    lines.append(f"  by status  {statuses or 'no answers'}")
    if whys:
        lines.append(f"  no answer  {', '.join(whys)}")
    if result.without_retry_after:
        lines.append(f"  503 without Retry-After: {result.without_retry_after}")
    heads = "".join(f"{f'p{percent:g}':>10}" for percent in PERCENTILES)
    lines += ["", f"{'latency in ms':<28}{heads}{'max':>10}"]
    for name, latency in (*result.latency.items(), ("answered", result.answered)):
        if latency.corrected.count:
            lines.append(_row(f"{name}, from schedule", latency.corrected))
            lines.append(_row(f"{name}, from sending", latency.service))
    lines.append(_row("generator's lag", result.lag))
    if lost := result.outcomes[Outcome.ERROR] + result.outcomes[Outcome.UNSENT]:
        lines.append(f"{lost} arrivals were never answered, and are in no latency above")
    lines += [
        "",
        f"generator: {result.cpu_us_per_request:.1f} us of CPU per request, "
        f"busy {result.busy_share:.0%} of its busiest second",
        f"generator: DID NOT KEEP UP: {'; '.join(result.generator_faults)}"
        if result.generator_faults
        else "generator: kept up",
    ]
    return lines


def _row(name: str, histogram: Histogram) -> str:
    values = (*(histogram.percentile_ms(percent) for percent in PERCENTILES), histogram.max_ms)
    return f"{name:<28}" + "".join(f"{value:>10.2f}" for value in values)
