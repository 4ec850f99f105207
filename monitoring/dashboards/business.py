"""What campaigns bring, side by side."""

from __future__ import annotations

from monitoring.panels import (
    COUNT,
    EVENTS_PER_S,
    REQUESTS_PER_S,
    SHARE,
    Json,
    Query,
    Row,
    dashboard,
    lines,
    number,
    rate,
    variable,
)
from reservation.record import SOLD

CHOSEN = 'campaign=~"$campaign"'
RESERVATIONS = "doorbuster_reservations_total"
SETTLED = "doorbuster_settled_events_total"
PAYMENTS = "doorbuster_settled_payments_total"
SOLD_STATES = "|".join(sorted(SOLD))
SOLD_UNITS = f'max by (campaign, sku) (doorbuster_units{{{CHOSEN}, state=~"{SOLD_STATES}"}})'
STOCK_UNITS = f"max by (campaign, sku) (doorbuster_offer_stock_units{{{CHOSEN}}})"
HELD, ASKED_IN_VAIN, SOLD_OUT = 'outcome="held"', 'outcome!="held"', 'outcome="sold_out"'
EXPIRED, HOLDS = 'type="expired"', 'type=~"reserved|offered"'
OTHER_STEPS = 'type=~"offered|amended|cancelled|expired|forfeited|taken_back"'
FIRST, DEPOSIT, BALANCE = 'stage=~"full|deposit"', 'stage="deposit"', 'stage="balance"'


def business() -> Json:
    """What do the campaigns bring, and where do shoppers turn back?"""
    return dashboard(
        "doorbuster-business",
        "Doorbuster: business",
        "What do the campaigns bring, and where do shoppers turn back?",
        [
            variable(
                "campaign",
                "Campaigns",
                "label_values(doorbuster_conservation_drift, campaign)",
                all_of_them=True,
            )
        ],
        [_sums(), _over_time(), _steps(), _refusals()],
    )


def _in_all(metric: str, labels: str = "") -> str:
    selector = f"{CHOSEN}, {labels}" if labels else CHOSEN
    return f"sum(increase({metric}{{{selector}}}[$__range]))"


def _by_campaign(metric: str, labels: str = "") -> str:
    selector = f"{CHOSEN}, {labels}" if labels else CHOSEN
    return f"sum by (campaign) (increase({metric}{{{selector}}}[$__range]))"


def _sums() -> Row:
    return Row(
        "In what is shown",
        [
            number(
                "Reservations",
                "How many got one?",
                COUNT,
                Query(_in_all(RESERVATIONS, HELD)),
            ),
            number(
                "Orders",
                "How many reservations were paid for, by their first payment?",
                COUNT,
                Query(_in_all(PAYMENTS, FIRST)),
            ),
            number(
                "Units sold", "How many units are paid for, as of now?", COUNT, Query(f"sum({SOLD_UNITS})")
            ),
            number(
                "Expired",
                "Which part of all holds ended unpaid?",
                SHARE,
                Query(f"{_in_all(SETTLED, EXPIRED)} / {_in_all(SETTLED, HOLDS)}"),
            ),
        ],
    )


def _over_time() -> Row:
    return Row(
        "Campaigns side by side",
        [
            lines(
                "Reservations",
                "How many get one each second, in each campaign?",
                EVENTS_PER_S,
                Query(f"sum by (campaign) ({rate(RESERVATIONS, f'{CHOSEN}, {HELD}')})", "{{campaign}}"),
                width=8,
            ),
            lines(
                "Payments",
                "How many pay each second, and for what?",
                EVENTS_PER_S,
                Query(f"sum by (campaign, stage) ({rate(PAYMENTS, CHOSEN)})", "{{campaign}}: {{stage}}"),
                width=8,
            ),
            lines(
                "Units sold",
                "How many units of each campaign are paid for?",
                COUNT,
                Query(
                    "sum by (campaign) "
                    f'(max by (campaign, sku) (doorbuster_units{{{CHOSEN}, state=~"{SOLD_STATES}"}}))',
                    "{{campaign}}",
                ),
                width=8,
            ),
            lines(
                "Part of the stock that is sold",
                "How far is each campaign?",
                SHARE,
                Query(
                    f"sum by (campaign) ({SOLD_UNITS}) / sum by (campaign) ({STOCK_UNITS})",
                    "{{campaign}}",
                ),
                width=8,
                max_value=1,
            ),
            lines(
                "What becomes of reservations",
                "Which steps do they take, each second?",
                EVENTS_PER_S,
                Query(
                    f"sum by (type) ({rate(SETTLED, f'{CHOSEN}, {OTHER_STEPS}')})",
                    "{{type}}",
                ),
                width=16,
                stacked=True,
            ),
        ],
    )


def _steps() -> Row:
    held, asked = _by_campaign(RESERVATIONS, HELD), _by_campaign(RESERVATIONS)
    paid, holds = (
        _by_campaign(PAYMENTS, FIRST),
        _by_campaign(SETTLED, HOLDS),
    )
    balance, deposit = _by_campaign(PAYMENTS, BALANCE), _by_campaign(PAYMENTS, DEPOSIT)
    return Row(
        "From step to step, in what is shown",
        [
            lines(
                "Visit to request",
                "How many ask for a reservation, for each who looked? Above 1, they ask more than once.",
                SHARE,
                Query(f"{asked} / ({_by_campaign('doorbuster_visits_total')} > 0)", "{{campaign}}"),
                width=8,
            ),
            lines(
                "Request to reservation",
                "Which part of those who ask gets one?",
                SHARE,
                Query(f"{held} / ({asked} > 0)", "{{campaign}}"),
                width=8,
                max_value=1,
            ),
            lines(
                "Reservation to payment",
                "Which part of holds is paid for?",
                SHARE,
                Query(f"{paid} / ({holds} > 0)", "{{campaign}}"),
                width=8,
                max_value=1,
            ),
            lines(
                "Deposit to balance",
                "Which part of those who paid a deposit pays the balance?",
                SHARE,
                Query(f"{balance} / ({deposit} > 0)", "{{campaign}}"),
                max_value=1,
            ),
            lines(
                "Holds that expire",
                "Which part of all holds ends unpaid?",
                SHARE,
                Query(f"{_by_campaign(SETTLED, EXPIRED)} / ({holds} > 0)", "{{campaign}}"),
                max_value=1,
            ),
        ],
    )


def _refusals() -> Row:
    refused = f"{CHOSEN}, {ASKED_IN_VAIN}"
    return Row(
        "Turned away",
        [
            lines(
                "Refusals by reason",
                "Why do shoppers get no reservation? `sold_out` says how much more could have been sold.",
                REQUESTS_PER_S,
                Query(f"sum by (outcome) ({rate(RESERVATIONS, refused)})", "{{outcome}}"),
                stacked=True,
            ),
            lines(
                "Asked for and not had",
                "How many were told that nothing is left, in each campaign, in what is shown?",
                COUNT,
                Query(_by_campaign(RESERVATIONS, SOLD_OUT), "{{campaign}}"),
            ),
        ],
    )
