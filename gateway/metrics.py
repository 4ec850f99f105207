"""What the gateway tells Prometheus, over all its processes."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

from gateway.metric_files import added_up, bury, locked
from reservation.outcomes import Outcome

RESERVATIONS = Counter(
    "doorbuster_reservations_total",
    "Reservation requests answered, by outcome: held, or the refusal's code. Replays do not count.",
    ["campaign", "kind", "outcome"],
)
REPLAYS = Counter(
    "doorbuster_replays_total", "Reservation requests that a retry had made before.", ["campaign"]
)
VISITS = Counter(
    "doorbuster_visits_total", "Campaigns looked at, and event streams of campaigns opened.", ["campaign"]
)
REQUESTS = Histogram(
    "doorbuster_request_duration_seconds",
    "Time to answer a request, without the network.",
    ["route", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
PAYMENT_NOTICES = Counter(
    "doorbuster_payment_notices_total",
    "Callbacks of the payment provider, by type and what became of them.",
    ["type", "outcome"],
)
IN_PROGRESS = Gauge(
    "doorbuster_requests_in_progress",
    "Requests that are being answered, looked at a few times a second.",
    multiprocess_mode="livesum",
)
WATCHERS = Gauge(
    "doorbuster_watchers", "Event streams that are open.", ["stream"], multiprocess_mode="livesum"
)
WATCHERS_DROPPED = Counter(
    "doorbuster_watchers_dropped_total", "Event streams that we ended, and why.", ["stream", "reason"]
)
RESERVE_OUTCOMES = (
    "held",
    "overloaded",
    Outcome.ENDED,
    Outcome.IDEMPOTENCY_MISMATCH,
    Outcome.NOT_ELIGIBLE,
    Outcome.NOT_STARTED,
    Outcome.OFFER_NOT_FOUND,
    Outcome.PAUSED,
    Outcome.QUOTA_EXCEEDED,
    Outcome.SOLD_OUT,
    Outcome.STORE_UNAVAILABLE,
)
"""What a reservation request to a campaign that there is may be answered."""
_begun: set[str] = set()


def begin(campaign: str, kind: str) -> None:
    """Count a campaign from nothing. A series that begins with a thousand, as it may when a sale opens, has
    not risen by them for who asks how much it rose."""
    if campaign not in _begun:
        _begun.add(campaign)
        REPLAYS.labels(campaign)
        VISITS.labels(campaign)
        for outcome in RESERVE_OUTCOMES:
            RESERVATIONS.labels(campaign, kind, outcome)


def observe_all(histogram: Histogram, values: list[float]) -> None:
    """`observe` for many, at the price of one."""
    # The library has no such call; its own `observe` adds one to the same two.
    histogram._sum.inc(sum(values))
    bounds = histogram._upper_bounds
    if len(values) == 1:
        histogram._buckets[bisect_left(bounds, values[0])].inc(1)
        return
    values.sort()
    below, least, most = 0, values[0], values[-1]
    for place in range(bisect_left(bounds, least), bisect_left(bounds, most) + 1):
        upto = bisect_right(values, bounds[place])
        if upto > below:
            histogram._buckets[place].inc(upto - below)
        below = upto


class Found(Collector):
    """What was found for one scrape: so every process gives the same answer."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


Value = tuple[dict[str, str], float]
"""Labels, and what it is."""


def gauge(name: str, text: str, values: Iterable[Value]) -> GaugeMetricFamily:
    """A gauge with a value for each set of labels."""
    found = list(values)
    labels = list(found[0][0]) if found else []
    family = GaugeMetricFamily(name, text, labels=labels)
    for given, value in found:
        family.add_metric(list(given.values()), value)
    return family


class _Own(Collector):
    """What this process has counted, without the series of `hidden` campaigns."""

    def __init__(self, hidden: frozenset[str]) -> None:
        self._hidden = hidden

    def collect(self) -> Iterable[Metric]:
        for family in REGISTRY.collect():
            family.samples = [one for one in family.samples if one.labels.get("campaign") not in self._hidden]
            yield family


def exposition(families: Iterable[Metric], hidden: frozenset[str] = frozenset()) -> bytes:
    """All processes' counters and histograms, and `families`, as Prometheus reads them.

    What was counted of `hidden` campaigns is left out.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Found(families))
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        registry.register(_Own(hidden))
        return generate_latest(registry)
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    with locked(directory):
        bury(directory)
        files = added_up(directory, hidden)
        registry.register(Found(MultiProcessCollector.merge(files)))  # type: ignore[no-untyped-call]
    return generate_latest(registry)
