"""What the fast lane answered, on its way to metrics and traffic."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter, Histogram

from gateway.metrics import REQUESTS, RESERVATIONS, observe_all
from gateway.traffic import Traffic

COUNTED_FROM_NOTHING = (201, 409, 500, 503)
"""Statuses that are told before there is one. An opening that overwhelms us is over before a second scrape,
and what begins with a thousand has not risen by them."""


class Tally:
    """What the fast lane answered, put into the metrics once for all that were answered together: with its
    lock and its file, a counter costs as much as a look into the store."""

    def __init__(self, route: str, method: str, traffic: Traffic) -> None:
        self._route, self._method = route, method
        self._traffic = traffic
        self._noted: dict[tuple[str, str, str, int], tuple[list[float], list[str]]] = {}
        """By campaign, kind, outcome and status: how long each took, and who asked."""
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._histograms: dict[int, Histogram] = {}
        for status in COUNTED_FROM_NOTHING:
            self._histogram(status)

    def note(self, campaign: str, kind: str, outcome: str, status: int, seconds: float, user: str) -> None:
        noted = self._noted.get((campaign, kind, outcome, status))
        if noted is not None:
            noted[0].append(seconds)
            noted[1].append(user)
            return
        if not self._noted:
            asyncio.get_running_loop().call_soon(self.flush)
        self._noted[campaign, kind, outcome, status] = [seconds], [user]

    def flush(self) -> None:
        noted, self._noted = self._noted, {}
        for (campaign, kind, outcome, status), (durations, users) in noted.items():
            self._counter(campaign, kind, outcome).inc(len(durations))
            observe_all(self._histogram(status), durations)
            self._traffic.asked(campaign, outcome, users)

    def _counter(self, campaign: str, kind: str, outcome: str) -> Counter:
        labels = campaign, kind, outcome
        found = self._counters.get(labels)
        if found is None:
            found = self._counters[labels] = RESERVATIONS.labels(*labels)
        return found

    def _histogram(self, status: int) -> Histogram:
        found = self._histograms.get(status)
        if found is None:
            found = self._histograms[status] = REQUESTS.labels(self._route, self._method, str(status))
        return found
