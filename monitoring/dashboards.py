"""The Grafana dashboards as code; `python -m monitoring.dashboards` writes the JSON that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path

from monitoring.panels import (
    COUNT,
    EVENTS_PER_S,
    REQUESTS_PER_S,
    SECONDS,
    SHARE,
    Json,
    Query,
    Row,
    dashboard,
    lines,
    quantile,
    rate,
    variable,
    verdict,
)
from reservation.record import LIVE, SOLD

DIRECTORY = Path(__file__).parent / "grafana" / "dashboards"
CAMPAIGN = 'campaign="$campaign"'
REFUSED = f'{CAMPAIGN}, outcome!="held"'
STOCK_STATES = "|".join(["available", *sorted(LIVE | SOLD)])
"""The states whose units add up to an offer's stock."""


def sale_live() -> Json:
    """One sale while it runs, and the machinery behind it."""
    reservations = "doorbuster_reservations_total"
    durations = "doorbuster_request_duration_seconds"
    api = 'route=~"/v1/.+"'
    on_the_right = {
        "matcher": {"id": "byName", "options": "age of the oldest"},
        "properties": [{"id": "unit", "value": SECONDS}, {"id": "custom.axisPlacement", "value": "right"}],
    }
    return dashboard(
        "doorbuster-sale-live",
        "Doorbuster: sale live",
        "Is the sale going well, and if not, where does it hurt?",
        [
            variable("campaign", "Campaign", "label_values(doorbuster_conservation_drift, campaign)"),
            variable("sku", "Offer", f"label_values(doorbuster_units{{{CAMPAIGN}}}, sku)", all_of_them=True),
        ],
        [
            Row(
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
                        "How many events lie aside now, refused by the book or survived by no worker? "
                        "It lacks what they say; `doorbuster dead-letters` shows them.",
                        Query("max(doorbuster_dead_letters)"),
                        zero="green",
                        more="red",
                    ),
                    verdict(
                        "Store",
                        "Does Redis answer the gateway? While it does not, no gauge on this page is known.",
                        Query("min(doorbuster_store_up)"),
                        zero="red",
                        more="green",
                        words=["down", "up"],
                    ),
                ],
            ),
            Row(
                "The sale: $campaign",
                [
                    lines(
                        "Reservations by outcome",
                        "How many ask for a reservation each second, and what are they told? `held` got one; "
                        "every other name is the code of a refusal. A retry does not count again.",
                        REQUESTS_PER_S,
                        Query(f"sum by (outcome) ({rate(reservations, CAMPAIGN)})", "{{outcome}}"),
                        stacked=True,
                    ),
                    lines(
                        "Share refused",
                        "Of those whom the sale's rules answer, what part is turned away, and by which rule? "
                        "Whom we fail to answer is not among them; see the answers by status below.",
                        SHARE,
                        Query(
                            f"sum by (outcome) ({rate(reservations, REFUSED)})"
                            f" / scalar(sum({rate(reservations, CAMPAIGN)}))",
                            "{{outcome}}",
                        ),
                        stacked=True,
                        max_value=1,
                    ),
                    lines(
                        "Units of $sku",
                        "How much of this offer is left, how much waits for payment and how much is sold? "
                        "The top of the pile is the stock: it moves only when somebody changes the stock.",
                        COUNT,
                        Query(
                            "max by (state) "
                            f'(doorbuster_units{{{CAMPAIGN}, sku=~"$sku", state=~"{STOCK_STATES}"}})',
                            "{{state}}",
                        ),
                        width=8,
                        stacked=True,
                        repeat="sku",
                    ),
                ],
            ),
            Row(
                "What shoppers wait for (all campaigns)",
                [
                    *(
                        lines(
                            f"Time to answer, p{percent}",
                            f"Within what time are {percent} % of the requests to each route answered? "
                            "Measured in the gateway, without the network.",
                            SECONDS,
                            Query(
                                quantile(percent / 100, durations, by=["method", "route"], labels=api),
                                "{{method}} {{route}}",
                            ),
                            width=8,
                            height=10,
                        )
                        for percent in (50, 95, 99)
                    ),
                    lines(
                        "Answers by status",
                        "Does the service answer? 503 means that it is overloaded or cannot reach its data; "
                        "any other 5xx is a defect.",
                        REQUESTS_PER_S,
                        Query(f"sum by (status) ({rate(f'{durations}_count', api)})", "{{status}}"),
                        width=24,
                        stacked=True,
                    ),
                ],
            ),
            Row(
                "What happens behind them (all campaigns)",
                [
                    lines(
                        "Outbox",
                        "Do events leave Redis as fast as they arise? A pile that grows, or an oldest event "
                        "that ages, means that the relay or the broker is away or too slow.",
                        COUNT,
                        Query("max(doorbuster_outbox_events)", "events"),
                        Query("max(doorbuster_outbox_oldest_seconds)", "age of the oldest"),
                        overrides=[on_the_right],
                    ),
                    lines(
                        "Settlement lag",
                        "How long after a shopper was told of a reservation is it in the book?",
                        SECONDS,
                        Query(quantile(0.5, "doorbuster_settlement_lag_seconds"), "p50"),
                        Query(quantile(0.99, "doorbuster_settlement_lag_seconds"), "p99"),
                    ),
                    lines(
                        "Expiries",
                        "How many reservations end unpaid each second: does their stock come back?",
                        EVENTS_PER_S,
                        Query(f"sum({rate('doorbuster_lapsed_total')})", "ended by deadline"),
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
                ],
            ),
        ],
    )


DASHBOARDS = {"sale-live.json": sale_live}
"""By file name."""


def text(found: Json) -> str:
    """A dashboard as its file has it."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, make in DASHBOARDS.items():
        (DIRECTORY / name).write_text(text(make()), encoding="utf-8")


if __name__ == "__main__":
    main()
