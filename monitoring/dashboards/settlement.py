"""What was acknowledged, on its way into the book; and what the book asks for."""

from __future__ import annotations

from monitoring.panels import (
    COUNT,
    EVENTS_PER_S,
    SECONDS,
    Json,
    Query,
    Row,
    dashboard,
    lines,
    mean,
    on_the_right,
    quantiles,
    rate,
    verdict,
)


def settlement() -> Json:
    """Does every acknowledged reservation reach the book, and in time?"""
    return dashboard(
        "doorbuster-settlement",
        "Doorbuster: settlement",
        "Does every acknowledged reservation reach the book, and in time?",
        [],
        [_verdicts(), _way(), _book(), _money()],
    )


def _verdicts() -> Row:
    return Row(
        "Is anything amiss?",
        [
            verdict(
                "Conservation drift",
                "Do sold, held and available units add up to the stock in every campaign?",
                Query("max(doorbuster_conservation_drift)"),
                zero="green",
                more="red",
                width=6,
            ),
            verdict(
                "Reconciliation",
                "In how many places do Redis and PostgreSQL differ, as the patrol last saw them?",
                Query("sum(max by (drift) (doorbuster_reconciliation_differences))"),
                zero="green",
                more="red",
                width=6,
            ),
            verdict(
                "Dead letters",
                "How many events did the book refuse, and still lacks?",
                Query("max(doorbuster_dead_letters)"),
                zero="green",
                more="red",
                width=6,
            ),
            verdict(
                "Fence",
                "Has Redis lost something that was acknowledged? Then it takes nothing.",
                Query("max(doorbuster_store_fenced)"),
                zero="green",
                more="red",
                words=["none", "fenced"],
                width=6,
            ),
        ],
    )


def _way() -> Row:
    return Row(
        "On the way",
        [
            lines(
                "Events in the outbox",
                "How much is acknowledged and in Redis alone?",
                COUNT,
                Query("max(doorbuster_outbox_events)", "events"),
                width=8,
            ),
            lines(
                "Oldest event in the outbox",
                "For how long has what waits longest waited? It pages beyond 15 s.",
                SECONDS,
                Query("max(doorbuster_outbox_oldest_seconds)", "oldest"),
                width=8,
            ),
            lines(
                "Messages in the queue",
                "How much waits for a worker, and how much is with one? In messages of up to 64 KiB.",
                COUNT,
                Query('sum(rabbitmq_detailed_queue_messages_ready{queue="doorbuster.events"})', "waiting"),
                Query(
                    'sum(rabbitmq_detailed_queue_messages_unacked{queue="doorbuster.events"})',
                    "with a worker",
                ),
                width=8,
                stacked=True,
            ),
            lines(
                "In hand",
                "How many events has a relay or worker read, and not passed on yet?",
                COUNT,
                Query("sum by (job) (doorbuster_events_in_hand)", "{{job}}"),
                width=8,
            ),
            lines(
                "In and out",
                "Does as much reach the book as is relayed? The area between the lines is the queue.",
                EVENTS_PER_S,
                Query(f"sum({rate('doorbuster_relayed_events_total')})", "relayed"),
                Query(f"sum({rate('doorbuster_settled_events_total')})", "settled"),
                width=8,
            ),
            lines(
                "Tried again",
                "What does not succeed at once?",
                EVENTS_PER_S,
                Query(f"sum({rate('doorbuster_relay_failures_total')})", "publishes"),
                Query(
                    f"sum by (reason) ({rate('doorbuster_settle_failures_total')})",
                    "transactions: {{reason}}",
                ),
                width=8,
            ),
        ],
    )


def _book() -> Row:
    return Row(
        "In the book",
        [
            lines(
                "Settlement lag",
                "How long after a shopper was told of a reservation is it in the book?",
                SECONDS,
                *quantiles("doorbuster_settlement_lag_seconds", 50, 95, 99),
                width=8,
            ),
            lines(
                "Batches",
                "How many events share a read of the outbox, and a transaction? More is cheaper, and later.",
                COUNT,
                Query(mean("doorbuster_relay_batch_events"), "relay"),
                Query(mean("doorbuster_settle_batch_events"), "worker"),
                width=8,
            ),
            lines(
                "Time of a transaction",
                "How long does PostgreSQL take for a batch?",
                SECONDS,
                *quantiles("doorbuster_settle_duration_seconds", 50, 99),
                width=8,
            ),
            lines(
                "What is settled",
                "What happens to reservations, as the book has it?",
                EVENTS_PER_S,
                Query(f"sum by (type) ({rate('doorbuster_settled_events_total')})", "{{type}}"),
                stacked=True,
            ),
            lines(
                "Differences by what they are",
                "What does the patrol find that differs, and how long does a round of it take?",
                COUNT,
                Query("max by (drift) (doorbuster_reconciliation_differences)", "{{drift}}"),
                Query("max(doorbuster_patrol_seconds)", "a round"),
                overrides=[on_the_right("a round", SECONDS)],
            ),
        ],
    )


def _money() -> Row:
    return Row(
        "What the book asks for",
        [
            lines(
                "Refunds",
                "How many has the provider not made yet, and does it take what we ask for?",
                COUNT,
                Query("max(doorbuster_refunds_pending)", "pending"),
                Query(
                    f"sum by (outcome) ({rate('doorbuster_refund_requests_total')})",
                    "asked for, {{outcome}}, 1/s",
                ),
                width=8,
            ),
            lines(
                "Notifications",
                "How many has the merchant not taken yet, and for how long has the oldest waited?",
                COUNT,
                Query("max(doorbuster_notifications_pending)", "pending"),
                Query("max(doorbuster_notification_oldest_seconds)", "oldest"),
                width=8,
                overrides=[on_the_right("oldest", SECONDS)],
            ),
            lines(
                "Deadlines and waitlists",
                "How many reservations end, or are reminded, by deadline, and how many in line are served?",
                EVENTS_PER_S,
                Query(f"sum({rate('doorbuster_lapsed_total')})", "by deadline"),
                Query(f"sum({rate('doorbuster_waitlist_served_total')})", "served"),
                width=8,
            ),
        ],
    )
