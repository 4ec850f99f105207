"""One sale, from the minute before it opens to its last unit."""

from __future__ import annotations

from monitoring.panels import (
    COUNT,
    DURATION,
    EVENTS_PER_S,
    REQUESTS_PER_S,
    SECONDS,
    SHARE,
    Json,
    Query,
    Row,
    dashboard,
    lines,
    number,
    on_the_right,
    quantile,
    quantiles,
    rate,
    variable,
    verdict,
)
from reservation.record import LIVE, SOLD

CAMPAIGN = 'campaign="$campaign"'
STOCK_STATES = "|".join(["available", *sorted(LIVE | SOLD)])
"""The states whose units add up to an offer's stock."""
SOLD_STATES = "|".join(sorted(SOLD))
ENDS = "payment_succeeded|cancelled|expired|forfeited|taken_back"
RESERVE = 'method="POST", route=~"/v1/campaigns/[^/]+/reservations"'
RESERVATIONS = "doorbuster_reservations_total"
DURATIONS = "doorbuster_request_duration_seconds"


def sale_live() -> Json:
    """Is the sale going well?"""
    return dashboard(
        "doorbuster-sale-live",
        "Doorbuster: sale live",
        "Is the sale going well, and if not, where does it hurt?",
        [
            variable("campaign", "Campaign", "label_values(doorbuster_conservation_drift, campaign)"),
            variable("sku", "Offer", f"label_values(doorbuster_units{{{CAMPAIGN}}}, sku)", all_of_them=True),
        ],
        [_verdicts(), _clock(), _demand(), _stock(), _way(), _answers()],
    )


def _verdicts() -> Row:
    return Row(
        "Is all well?",
        [
            verdict(
                "Conservation drift of $campaign",
                "Do sold, held and available units still add up to the stock? "
                "Anything but 0 is a defect; `doorbuster audit` says which.",
                Query(f"max(doorbuster_conservation_drift{{{CAMPAIGN}}})"),
                zero="green",
                more="red",
            ),
            verdict(
                "Dead letters",
                "How many events lie where the book refused them? It lacks what they say. "
                "`doorbuster dead-letters` shows them.",
                Query("max(doorbuster_dead_letters)"),
                zero="green",
                more="red",
            ),
            verdict(
                "Store",
                "Does Redis answer the gateways, and take what they write? While it does not answer, no "
                "gauge on this page is known.",
                Query("min(doorbuster_store_up) - (max(doorbuster_store_fenced) or vector(0))"),
                zero="red",
                more="green",
                words=["away or fenced", "up"],
            ),
        ],
    )


def _clock() -> Row:
    opens = f"max(doorbuster_campaign_opens_timestamp_seconds{{{CAMPAIGN}}})"
    closes = f"max(doorbuster_campaign_closes_timestamp_seconds{{{CAMPAIGN}}})"
    of_stock = f'sum(max by (sku) (doorbuster_units{{{CAMPAIGN}, state=~"{SOLD_STATES}"}}))'
    stock = f"sum(max by (sku) (doorbuster_offer_stock_units{{{CAMPAIGN}}}))"
    left = f'doorbuster_units{{{CAMPAIGN}, state="available"}}'
    gone = f"timestamp(max by (campaign, sku) ({left}) == 0)"
    # What was gone before would seem to have gone at the left edge.
    gone_before = f"max by (campaign, sku) ({left} offset $__range) == 0"
    return Row(
        "Where does it stand?",
        [
            number(
                "Opens in",
                "How long until the first reservation may be made, by the store's clock?",
                DURATION,
                Query(f"{opens} - time()"),
                below_zero="open",
            ),
            number(
                "Closes in",
                "How long until the last reservation may be made?",
                DURATION,
                Query(f"{closes} - time()"),
                below_zero="closed",
            ),
            number(
                "Sold of the stock",
                "What part of all the stock is paid for?",
                SHARE,
                Query(f"{of_stock} / {stock}"),
            ),
            number(
                "Time to sold out",
                "How long after the opening was nothing left of each offer for the first time, where that "
                "is in what is shown? An expired hold may put it back on sale.",
                DURATION,
                Query(
                    f"(min_over_time({gone}[$__range:5s]) unless on (campaign, sku) {gone_before})"
                    " - on (campaign) group_left max by (campaign) "
                    f"(doorbuster_campaign_opens_timestamp_seconds{{{CAMPAIGN}}})",
                    "{{sku}}",
                ),
                unknown="not in what is shown",
            ),
        ],
    )


def _demand() -> Row:
    refused = f'{CAMPAIGN}, outcome!="held"'
    return Row(
        "Who comes: $campaign",
        [
            lines(
                "Reservations by outcome",
                "How many ask for a reservation each second, and what are they told? `held` got one; "
                "every other name is the code of a refusal. A retry does not count again.",
                REQUESTS_PER_S,
                Query(f"sum by (outcome) ({rate(RESERVATIONS, CAMPAIGN)})", "{{outcome}}"),
                stacked=True,
            ),
            lines(
                "Share refused",
                "Of those who ask, what part gets nothing, and why? `sold_out` "
                "is a good answer. `overloaded` and `store_unavailable` are none: those are whom we fail.",
                SHARE,
                Query(
                    f"sum by (outcome) ({rate(RESERVATIONS, refused)})"
                    f" / scalar(sum({rate(RESERVATIONS, CAMPAIGN)}))",
                    "{{outcome}}",
                ),
                stacked=True,
                max_value=1,
            ),
            lines(
                "Watching, and asking again",
                "How many keep an event stream open, and how many reservations are asked for again with the "
                "same key?",
                COUNT,
                Query("sum(doorbuster_watchers)", "streams open (all campaigns)"),
                Query(f"sum({rate('doorbuster_replays_total', CAMPAIGN)})", "retries, 1/s"),
                width=24,
                height=6,
                overrides=[on_the_right("retries, 1/s", REQUESTS_PER_S)],
            ),
        ],
    )


def _stock() -> Row:
    return Row(
        "What is left: $campaign",
        [
            lines(
                "Units of $sku",
                "How much of this offer is left, how much waits for payment and how much is sold? "
                "The top of the pile is the stock: it moves only when somebody changes the stock.",
                COUNT,
                Query(
                    f'max by (state) (doorbuster_units{{{CAMPAIGN}, sku=~"$sku", state=~"{STOCK_STATES}"}})',
                    "{{state}}",
                ),
                width=8,
                stacked=True,
                repeat="sku",
            ),
        ],
    )


def _way() -> Row:
    ends = f'{CAMPAIGN}, type=~"{ENDS}"'
    settled, payments = "doorbuster_settled_events_total", "doorbuster_settled_payments_total"
    steps = [
        ("visit", f"sum(increase(doorbuster_visits_total{{{CAMPAIGN}}}[$__range]))"),
        ("ask", f"sum(increase({RESERVATIONS}{{{CAMPAIGN}}}[$__range]))"),
        ("reserve", f'sum(increase({RESERVATIONS}{{{CAMPAIGN}, outcome="held"}}[$__range]))'),
        ("pay", f'sum(increase({payments}{{{CAMPAIGN}, stage=~"full|deposit"}}[$__range]))'),
        ("settle", f'sum(increase({settled}{{{CAMPAIGN}, type="reserved"}}[$__range]))'),
    ]
    return Row(
        "How far do they get: $campaign",
        [
            lines(
                "Funnel",
                "Of those who looked, how many asked, got a reservation, paid, and are in the book, each "
                "added up from the left edge of what is shown?",
                COUNT,
                *(Query(promql, step) for step, promql in steps),
            ),
            lines(
                "Ends of holds",
                "How do reservations go on each second: are they paid, given back, or left to expire?",
                EVENTS_PER_S,
                Query(
                    f"sum by (type) ({rate(settled, ends)})",
                    "{{type}}",
                ),
                stacked=True,
            ),
        ],
    )


def _answers() -> Row:
    return Row(
        "What they wait for (all campaigns)",
        [
            lines(
                "Time to answer who reserves",
                "Within what time is half, 95 % and 99 % of them answered? Measured in the gateway, without "
                "the network.",
                SECONDS,
                *quantiles(DURATIONS, 50, 95, 99, labels=RESERVE),
            ),
            lines(
                "Answers by status",
                "Does the service answer who reserves? 409 is a good answer. 503 means that it is overloaded "
                "or cannot reach its data; any other 5xx is a defect.",
                REQUESTS_PER_S,
                Query(f"sum by (status) ({rate(f'{DURATIONS}_count', RESERVE)})", "{{status}}"),
                stacked=True,
            ),
            lines(
                "Payment notices",
                "What does the payment provider tell us, and do we believe it? `known` is a repeat; "
                "`mismatched` is the wrong amount or currency, `unknown` a payment nobody asked for.",
                EVENTS_PER_S,
                Query(
                    f"sum by (type, outcome) ({rate('doorbuster_payment_notices_total')})",
                    "{{type}}: {{outcome}}",
                ),
                stacked=True,
            ),
            lines(
                "Behind them",
                "Does what is sold leave Redis, and how late is it in the book?",
                COUNT,
                Query("max(doorbuster_outbox_events)", "events in the outbox"),
                Query(quantile(0.99, "doorbuster_settlement_lag_seconds"), "settlement lag, p99"),
                overrides=[on_the_right("settlement lag, p99", SECONDS)],
            ),
        ],
    )
