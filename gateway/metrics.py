"""What the gateway tells Prometheus, over all its processes."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

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
WATCHERS = Gauge(
    "doorbuster_watchers", "Event streams that are open.", ["stream"], multiprocess_mode="livesum"
)
WATCHERS_DROPPED = Counter(
    "doorbuster_watchers_dropped_total", "Event streams that we ended, and why.", ["stream", "reason"]
)


class Traffic(Protocol):
    """Where what happened is noted for the report; gateway.traffic does."""

    def count(self, campaign: str, what: str, times: int = 1) -> None: ...

    def asked(self, campaign: str, users: Iterable[str]) -> None: ...


class Tally:
    """What the fast lane answered, put into the metrics once for all that were answered together: with its
    lock and its file, a counter costs as much as a look into the store."""

    def __init__(self, route: str, method: str, traffic: Traffic) -> None:
        self._route, self._method = route, method
        self._traffic = traffic
        self._outcomes: Counts[tuple[str, str, str]] = Counts()
        self._askers: defaultdict[str, set[str]] = defaultdict(set)
        """By campaign: the users who asked."""
        self._durations: dict[int, list[float]] = {}
        self._flush_is_due = False

    def note(self, campaign: str, kind: str, outcome: str, status: int, seconds: float, user: str) -> None:
        self._outcomes[campaign, kind, outcome] += 1
        self._askers[campaign].add(user)
        self._durations.setdefault(status, []).append(seconds)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        self._flush_is_due = False
        for labels, count in self._outcomes.items():
            RESERVATIONS.labels(*labels).inc(count)
            campaign, _, outcome = labels
            self._traffic.count(campaign, outcome, count)
        for campaign, users in self._askers.items():
            self._traffic.asked(campaign, users)
        for status, observed in self._durations.items():
            observe_all(REQUESTS.labels(self._route, self._method, str(status)), observed)
        self._outcomes.clear()
        self._askers.clear()
        self._durations.clear()


def observe_all(histogram: Histogram, values: list[float]) -> None:
    """`observe` for many, at the price of one."""
    values.sort()
    # The library has no such call; its own `observe` adds one to the same two.
    histogram._sum.inc(sum(values))
    below = 0
    for bound, bucket in zip(histogram._upper_bounds, histogram._buckets, strict=True):
        upto = bisect_right(values, bound)
        if upto > below:
            bucket.inc(upto - below)
        below = upto


class Gauges(Collector):
    """Gauges read from the stores for each scrape, so that every process gives the same answer."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def gauge(name: str, text: str, values: Iterable[tuple[dict[str, str], float]]) -> GaugeMetricFamily:
    """A gauge with a value for each set of labels."""
    found = list(values)
    labels = list(found[0][0]) if found else []
    family = GaugeMetricFamily(name, text, labels=labels)
    for given, value in found:
        family.add_metric(list(given.values()), value)
    return family


def exposition(families: Iterable[Metric]) -> bytes:
    """All processes' counters and histograms, and `families`, as Prometheus reads them."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        own = CollectorRegistry(auto_describe=False)
        own.register(Gauges(families))
        return generate_latest(REGISTRY) + generate_latest(own)
    _forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    registry = CollectorRegistry(auto_describe=False)
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(Gauges(families))
    return generate_latest(registry)


def _forget_the_dead(directory: Path) -> None:
    """A process that was killed could not take back what its gauges said."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (PermissionError, ValueError):
            continue
