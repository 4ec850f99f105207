"""What a run found out."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Any

from loadtests.openloop.histogram import Histogram
from loadtests.openloop.notes import Notes
from loadtests.openloop.outcomes import ANSWERED, Fault, Outcome, outcome_of
from loadtests.openloop.plan import Plan
from loadtests.openloop.schedule import NS

LAG_P99_MS_MAX = 5.0
"""A generator that is later than this for more than one arrival in a hundred did not keep its schedule."""
BUSY_SHARE_MAX = 0.95
"""Nor did one that could not rest in its busiest second: then answers wait for it, and not it for answers."""


class Miscounted(Exception):
    """An arrival ended never, or twice: a defect of the generator, and no number of it is worth a thing."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the arrivals that were answered in one way."""

    corrected: Histogram
    """From the time that the arrival had in the schedule: what a shopper would have seen."""
    service: Histogram
    """From the moment of sending. It hides how long arrivals waited for a connection while all stalled."""


@dataclass(frozen=True, slots=True)
class Result:
    """Of the arrivals after the warm-up. Raises Miscounted unless each of them is in `outcomes` once."""

    scheduled: int
    seconds: float
    """That the schedule had for them."""
    outcomes: dict[Outcome, int]
    statuses: dict[int, int]
    faults: dict[Fault, int]
    without_retry_after: int
    """Of those that were told 503."""
    latency: dict[Outcome, Latency]
    """For each outcome with an answer. Who got none is in no percentile: look at `outcomes` first."""
    answered: Latency
    """All of these together."""
    lag: Histogram
    """How long after its time an arrival was taken up: sent, or put in line as no connection was free."""
    rate_scheduled: float
    """Arrivals per second."""
    rate_sent: float
    """Requests per second, until the last one was sent."""
    busy_share: float
    """How much of its busiest second the generator ran, or waited for a core to run on."""
    busy_poll: bool
    cpu_us_per_request: float
    """The generator's own, warm-up included."""
    connections_opened: int
    connections_peak: int

    def __post_init__(self) -> None:
        counted = sum(self.outcomes.values())
        if counted != self.scheduled:
            raise Miscounted(f"{self.scheduled} arrivals were scheduled, {counted} have an outcome")

    @property
    def generator_faults(self) -> list[str]:
        """Why these numbers tell more of the generator than of the service."""
        return self.faults_with_lag(LAG_P99_MS_MAX)

    def faults_with_lag(self, p99_ms_max: float) -> list[str]:
        """The same, where the generator may be as late as that: for who does not count milliseconds."""
        found = []
        late_ms = self.lag.percentile_ms(99)
        if late_ms > p99_ms_max:
            found.append(f"1 % of all arrivals were sent {late_ms:.1f} ms late or more")
        # Who polls has no rest at all.
        if not self.busy_poll and self.busy_share > BUSY_SHARE_MAX:
            found.append(f"in its busiest second it rested {max(0.0, 1 - self.busy_share):.1%}")
        if self.faults.get(Fault.NO_SOCKET):
            found.append(f"it had no port or file descriptor left {self.faults[Fault.NO_SOCKET]} times")
        return found

    @property
    def generator_kept_up(self) -> bool:
        """Whether the lag's p99 is at most LAG_P99_MS_MAX, the busy share at most BUSY_SHARE_MAX (unless it
        polls), and it never lacked a socket."""
        return not self.generator_faults

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        latencies = {str(outcome): of for outcome, of in self.latency.items()} | {"answered": self.answered}
        return {
            "scheduled": self.scheduled,
            "seconds": self.seconds,
            "outcomes": {str(outcome): count for outcome, count in self.outcomes.items()},
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "faults": {fault.name.lower(): count for fault, count in self.faults.items()},
            "without_retry_after": self.without_retry_after,
            "latency": {
                name: {"corrected": of.corrected.as_json(), "service": of.service.as_json()}
                for name, of in latencies.items()
            },
            "lag": self.lag.as_json(),
            "rate_scheduled": round(self.rate_scheduled, 1),
            "rate_sent": round(self.rate_sent, 1),
            "busy_share": round(self.busy_share, 3),
            "busy_poll": self.busy_poll,
            "cpu_us_per_request": round(self.cpu_us_per_request, 2),
            "connections_opened": self.connections_opened,
            "connections_peak": self.connections_peak,
            "generator_kept_up": self.generator_kept_up,
            "generator_faults": self.generator_faults,
        }


def result_of(plan: Plan, notes: Notes) -> Result:
    """Raises Miscounted."""
    schedule = plan.schedule
    total = len(schedule.arrivals_ns)
    warm_up_ns = round(plan.warm_up_s * NS)
    first = bisect_left(schedule.arrivals_ns, warm_up_ns)
    recorded = range(first, total)
    due_ns, codes = schedule.arrivals_ns, notes.codes
    if notes.ended != total or 0 in codes:
        raise Miscounted(f"{total} arrivals, {notes.ended} ends, {codes.count(0)} without an end")

    start_ns, sent_ns, ended_ns = notes.start_ns, notes.sent_ns, notes.ended_ns
    by_code = Counter(codes[first:])
    outcomes = dict.fromkeys(Outcome, 0)
    for code, count in by_code.items():
        outcomes[outcome_of(code)] += count
    latency = {outcome: Latency(Histogram(), Histogram()) for outcome in ANSWERED}
    answered = Latency(Histogram(), Histogram())
    for code in by_code:
        if code < 0:
            continue
        of_code = [n for n in recorded if codes[n] == code]
        corrected = Histogram(ended_ns[n] - start_ns - due_ns[n] for n in of_code)
        service = Histogram(ended_ns[n] - sent_ns[n] for n in of_code)
        for latencies in (latency[outcome_of(code)], answered):
            latencies.corrected.merge(corrected)
            latencies.service.merge(service)

    seconds = schedule.seconds - plan.warm_up_s
    sent = sum(1 for n in recorded if sent_ns[n])
    last_sent_ns = max((sent_ns[n] for n in recorded), default=0)
    sent_seconds = max(seconds, (last_sent_ns - start_ns - warm_up_ns) / NS)
    sent_ever = total - sent_ns.count(0)
    return Result(
        scheduled=len(recorded),
        seconds=seconds,
        outcomes=outcomes,
        statuses={code: by_code[code] for code in sorted(by_code) if code > 0},
        faults={fault: by_code[fault] for fault in Fault if fault in by_code},
        without_retry_after=sum(1 for n in notes.without_retry_after if n >= first),
        latency=latency,
        answered=answered,
        lag=Histogram(notes.taken_up_ns[n] - start_ns - due_ns[n] for n in recorded),
        rate_scheduled=len(recorded) / seconds,
        rate_sent=sent / sent_seconds,
        busy_share=max(notes.busy_shares, default=0.0),
        busy_poll=plan.busy_poll,
        cpu_us_per_request=notes.cpu_ns / 1000 / sent_ever if sent_ever else 0.0,
        connections_opened=notes.connections_opened,
        connections_peak=notes.connections_peak,
    )
