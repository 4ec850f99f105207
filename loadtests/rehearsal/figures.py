"""What was measured in one step. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.openloop.outcomes import ANSWERED, Outcome
from loadtests.openloop.result import Result
from loadtests.rehearsal.exposition import Reading, gained, percentile_s

ROUTE = "/v1/campaigns/{campaign}/reservations"


@dataclass(frozen=True, slots=True)
class Told:
    """What the deployment's metrics say of a step; None where they do not say."""

    gateway_p99_ms: float | None = None
    """From the whole request's arrival at a gateway to its answer."""
    loop_lag_p99_ms: float | None = None
    """How late a gateway's event loop came to its timers."""
    store_p99_ms: float | None = None
    """Of reserving in Redis, as a gateway sees it: what shoppers wait for. Pages may wait."""
    store_failures: float | None = None
    outbox_events: float | None = None
    outbox_oldest_s: float | None = None
    settlement_lag_p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A step: what came, what became of it, and who was how busy. Latencies are from the schedule."""

    rate: float
    """Arrivals per second."""
    arrivals: int
    seconds: float
    admitted: int
    refused: int
    overloaded: int
    other: int
    """Answers that no shopper of an opening should get, such as 403 or 500."""
    unanswered: int
    statuses: Mapping[int, int]
    faults: Mapping[str, int]
    p50_ms: float
    p99_ms: float
    generator_lag_p99_ms: float
    generator_faults: list[str]
    told: Told
    cores: Mapping[str, float] = field(default_factory=dict)
    """That each role of an `up` on this machine used."""
    processes: Mapping[str, int] = field(default_factory=dict)
    generator_cores: float = 0.0
    machine_full: float | None = None
    """The share of this machine's cores that was in use."""

    @property
    def answered(self) -> int:
        return self.arrivals - self.unanswered

    def share(self, count: int) -> float:
        return count / self.arrivals if self.arrivals else 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"answered": self.answered}


def told(before: Reading | None, after: Reading | None) -> Told:
    """What two readings, before a step and after it, say of it."""
    if before is None or after is None:
        return Told()

    def ms(histogram: str, **labels: str) -> float | None:
        found = percentile_s(before, after, histogram, 99, **labels)
        return None if found is None else found * 1000

    return Told(
        gateway_p99_ms=ms("doorbuster_request_duration_seconds", route=ROUTE, method="POST"),
        loop_lag_p99_ms=ms("doorbuster_event_loop_lag_seconds", role="gateway"),
        store_p99_ms=ms("doorbuster_store_command_duration_seconds", role="gateway", command="reserve"),
        store_failures=gained(before, after, "doorbuster_store_failures_total", role="gateway"),
        outbox_events=after.total("doorbuster_outbox_events"),
        outbox_oldest_s=after.total("doorbuster_outbox_oldest_seconds"),
        settlement_lag_p99_s=percentile_s(before, after, "doorbuster_settlement_lag_seconds", 99),
    )


def figures(
    rate: float,
    result: Result,
    told: Told,
    *,
    lag_p99_ms_max: float,
    cores: Mapping[str, float],
    processes: Mapping[str, int],
    generator_cores: float,
    machine_full: float | None,
    used_up_max: int = 0,
) -> Figures:
    """Of a step. `used_up_max` arrivals may find that their main order entitles to nothing more."""
    count = result.outcomes
    not_eligible = min(result.statuses.get(403, 0), used_up_max)
    latency = result.answered.corrected
    return Figures(
        rate=rate,
        arrivals=result.scheduled,
        seconds=result.seconds,
        admitted=count[Outcome.ADMITTED],
        refused=count[Outcome.REFUSED] + not_eligible,
        overloaded=count[Outcome.OVERLOADED],
        other=count[Outcome.OTHER] - not_eligible,
        unanswered=result.scheduled - sum(count[outcome] for outcome in ANSWERED),
        statuses=result.statuses,
        faults={fault.name.lower(): times for fault, times in result.faults.items()},
        p50_ms=latency.percentile_ms(50),
        p99_ms=latency.percentile_ms(99),
        generator_lag_p99_ms=result.lag.percentile_ms(99),
        generator_faults=result.faults_with_lag(lag_p99_ms_max),
        told=told,
        cores=cores,
        processes=processes,
        generator_cores=generator_cores,
        machine_full=machine_full,
    )
