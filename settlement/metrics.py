"""What settlement tells Prometheus."""

import time
from bisect import bisect_left
from collections.abc import Awaitable
from typing import TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

T = TypeVar("T")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_EVENTS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)

SETTLEMENT_LAG = Histogram(
    "doorbuster_settlement_lag_seconds",
    "From a reservation's acknowledgement to its committed row.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
SETTLED_EVENTS = Counter(
    "doorbuster_settled_events_total",
    "Events committed to the book, by campaign, its kind, and type. Those of main orders have no campaign.",
    ["campaign", "kind", "type"],
)
SETTLED_PAYMENTS = Counter(
    "doorbuster_settled_payments_total",
    "Payments that led a reservation on, committed to the book, by stage.",
    ["campaign", "kind", "stage"],
)
SETTLE_BATCH = Histogram("doorbuster_settle_batch_events", "Events in one transaction.", buckets=_EVENTS)
SETTLE_SECONDS = Histogram(
    "doorbuster_settle_duration_seconds",
    "A transaction that was committed, from asking for a connection on.",
    buckets=_SECONDS,
)
SETTLE_FAILURES = Counter(
    "doorbuster_settle_failures_total", "Transactions that failed and were tried again.", ["reason"]
)
SET_ASIDE = Counter("doorbuster_events_set_aside_total", "Events that the worker made dead letters of.")
RELAYED_EVENTS = Counter("doorbuster_relayed_events_total", "Events confirmed by the broker.")
RELAY_BATCH = Histogram(
    "doorbuster_relay_batch_events", "Events that were read from the outbox at once.", buckets=_EVENTS
)
PUBLISH_SECONDS = Histogram(
    "doorbuster_publish_duration_seconds",
    "Until the broker has confirmed all that was published at once.",
    buckets=_SECONDS,
)
BROKER_CONNECTIONS = Counter(
    "doorbuster_broker_connections_total", "Attempts to connect to a node of the broker.", ["outcome"]
)
RELAY_FAILURES = Counter("doorbuster_relay_failures_total", "Publishes that failed and were tried again.")
IN_HAND = Gauge(
    "doorbuster_events_in_hand",
    "Events that a relay or worker has read and not passed on yet.",
    multiprocess_mode="livesum",
)
LAPSED = Counter("doorbuster_lapsed_total", "Reservations ended or reminded by their deadline.")
SERVED = Counter("doorbuster_waitlist_served_total", "Places in waitlists that became holds.")
DIFFERENCES = Gauge(
    "doorbuster_reconciliation_differences",
    "Differences between store and book in the patrol's last round, by what they are. 0 when all is well.",
    ["drift"],
    multiprocess_mode="livemax",
)
PATROL_SECONDS = Gauge(
    "doorbuster_patrol_seconds", "What the last round of the patrol took.", multiprocess_mode="livemax"
)
REFUND_REQUESTS = Counter(
    "doorbuster_refund_requests_total", "Refunds asked of the payment provider.", ["outcome"]
)
REFUND_SECONDS = Histogram(
    "doorbuster_refund_duration_seconds",
    "Until the payment provider has answered that it takes a refund, or not.",
    ["outcome"],
    buckets=_SECONDS,
)
NOTIFICATION_SECONDS = Histogram(
    "doorbuster_notification_duration_seconds",
    "Until the merchant's systems have answered an attempt to send them a notification.",
    ["outcome"],
    buckets=_SECONDS,
)
BOOK_SECONDS = Histogram(
    "doorbuster_book_query_duration_seconds",
    "A statement in the book that is no settling of events, from asking for a connection on.",
    ["outcome"],
    buckets=_SECONDS,
)
REFUNDS_PENDING = Gauge(
    "doorbuster_refunds_pending",
    "Refunds that the payment provider has not said to have made yet.",
    multiprocess_mode="livemostrecent",
    registry=None,
)
NOTIFICATIONS_PENDING = Gauge(
    "doorbuster_notifications_pending",
    "Notifications that are neither taken nor given up.",
    multiprocess_mode="livemostrecent",
    registry=None,
)
NOTIFICATION_OLDEST = Gauge(
    "doorbuster_notification_oldest_seconds",
    "For how long the oldest notification has been pending.",
    multiprocess_mode="livemostrecent",
    registry=None,
)
DEAD_LETTERS = Gauge(
    "doorbuster_dead_letters",
    "Dead letters that lie there now; with a broker, its messages of them.",
    multiprocess_mode="livemostrecent",
    registry=None,
)
_LOOKED_AFTER = (REFUNDS_PENDING, NOTIFICATIONS_PENDING, NOTIFICATION_OLDEST, DEAD_LETTERS)
NOTIFICATIONS = Counter(
    "doorbuster_notifications_total",
    "Attempts to send the merchant a notification, by what became of them.",
    ["type", "outcome"],
)


def observe(histogram: Histogram, value: float, times: int) -> None:
    """The same value, as often as that, at the price of once."""
    # The library has no such call; its own `observe` adds one to the same two.
    histogram._sum.inc(value * times)
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)


async def timed(histogram: Histogram, work: Awaitable[T]) -> T:
    """What `work` gives. How long it took is observed if it succeeds."""
    started = time.monotonic()
    found = await work
    histogram.observe(time.monotonic() - started)
    return found


def show_what_waits() -> None:
    """Have this process tell what waits: one that does not look would say that it is nothing."""
    for gauge in _LOOKED_AFTER:
        if gauge not in _shown:
            REGISTRY.register(gauge)
            _shown.add(gauge)


_shown: set[Gauge] = set()
