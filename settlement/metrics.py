"""What settlement tells Prometheus."""

from bisect import bisect_left

from prometheus_client import Counter, Gauge, Histogram

SETTLEMENT_LAG = Histogram(
    "doorbuster_settlement_lag_seconds",
    "From a reservation's acknowledgement to its committed row.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
SETTLED_EVENTS = Counter(
    "doorbuster_settled_events_total", "Events committed to the book, by type.", ["type"]
)
SETTLE_BATCH = Histogram(
    "doorbuster_settle_batch_events",
    "Events in one transaction.",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
SETTLE_FAILURES = Counter(
    "doorbuster_settle_failures_total", "Transactions that failed and were tried again.", ["reason"]
)
DEAD_LETTERS = Counter("doorbuster_dead_letters_total", "Events that the book refused.")
RELAYED_EVENTS = Counter("doorbuster_relayed_events_total", "Events confirmed by the broker.")
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
