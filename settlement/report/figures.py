"""The figures of a campaign as a whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

from settlement.report.facts import Facts
from settlement.report.figure import Figure, Unit, mean, share


def visitors(facts: Facts) -> int | None:
    return facts.visitors if facts.traffic_is_known else None


def participants(facts: Facts) -> int | None:
    if facts.participants is None or not facts.traffic_is_known:
        return None
    # A HyperLogLog may be out by one in a hundred; who has reserved is known exactly.
    return max(facts.participants, facts.reservers)


def _all_sold_out_s(facts: Facts) -> float | None:
    skus = [offer["sku"] for offer in facts.document["offers"]]
    if any(sku not in facts.sold_out for sku in skus):
        return None
    return max(facts.after_opening_s(facts.sold_out[sku]) for sku in skus)


def _refused(facts: Facts) -> int | None:
    found = facts.refused()
    return None if found is None else sum(found.values())


SUMMARY: tuple[Figure[Facts], ...] = (
    Figure(
        "visitors",
        "Visitors",
        Unit.COUNT,
        "Different people, services left out, who looked at the campaign or opened its event stream, to "
        "about one "
        "in a hundred: users by their token, others by their address (X-Forwarded-For, where there is one) "
        "and "
        "program.",
        visitors,
    ),
    Figure(
        "visits",
        "Visits",
        Unit.COUNT,
        "How often the campaign was looked at: requests for it by anybody but services, and event streams "
        "opened.",
        lambda facts: facts.happened("visit"),
    ),
    Figure(
        "participants",
        "Participants",
        Unit.COUNT,
        "Different users who asked for a reservation, refused or not, to about one in a hundred; never "
        "fewer than "
        "have reserved.",
        participants,
    ),
    Figure(
        "requests",
        "Reservation requests",
        Unit.COUNT,
        "Requests for a reservation that were understood and answered: held, refused, or a repeat of one "
        "before.",
        lambda facts: facts.requests(),
    ),
    Figure(
        "refused",
        "Refused",
        Unit.COUNT,
        "Requests for a reservation that were refused, for whatever reason.",
        _refused,
    ),
    Figure(
        "replayed",
        "Repeats",
        Unit.COUNT,
        "Requests that repeated an earlier one with the same Idempotency-Key, and got the same reservation.",
        lambda facts: facts.happened("replayed"),
    ),
    Figure(
        "quotes",
        "Quotes",
        Unit.COUNT,
        "Quotes given of what a basket would cost.",
        lambda facts: facts.happened("quoted"),
    ),
    Figure(
        "reservations",
        "Reservations",
        Unit.COUNT,
        "Reservations that were made, whatever became of them; those offered to who stood in line among "
        "them.",
        lambda facts: facts.all_became.reservations,
    ),
    Figure(
        "units_reserved",
        "Units reserved",
        Unit.COUNT,
        "Units of these reservations, in the quantity that each had last.",
        lambda facts: facts.all_became.units,
    ),
    Figure(
        "orders",
        "Orders",
        Unit.COUNT,
        "Reservations that are paid in full and stand: confirmed, and neither cancelled nor given back.",
        lambda facts: facts.all_became.orders,
    ),
    Figure(
        "units_sold",
        "Units sold",
        Unit.COUNT,
        "Units of the orders.",
        lambda facts: facts.all_became.units_sold,
    ),
    Figure(
        "gmv",
        "GMV",
        Unit.MONEY,
        "Gross merchandise value: what the orders cost their buyers, after all discounts.",
        lambda facts: facts.all_became.gmv,
    ),
    Figure(
        "revenue_kept",
        "Revenue kept",
        Unit.MONEY,
        "All payments that succeeded, less all refunds, made or still under way: deposits of unfinished and "
        "of "
        "forfeited reservations are in it.",
        lambda facts: facts.all_became.kept,
    ),
    Figure(
        "average_order_value",
        "Average order value",
        Unit.MONEY,
        "GMV by orders, to the nearest minor unit.",
        lambda facts: mean(facts.all_became.gmv, facts.all_became.orders),
    ),
    Figure(
        "expired",
        "Holds expired",
        Unit.COUNT,
        "Reservations whose hold expired unpaid, even if a payment came later.",
        lambda facts: facts.all_became.expired,
    ),
    Figure(
        "expiry_share",
        "Hold expiry",
        Unit.SHARE,
        "Holds expired by reservations.",
        lambda facts: share(facts.all_became.expired, facts.all_became.reservations),
    ),
    Figure(
        "sold_out_s",
        "Time to sold-out",
        Unit.SECONDS,
        "From the opening until the last of its offers had sold out for the first time; null if one never "
        "did.",
        _all_sold_out_s,
    ),
)


REFUNDS: tuple[Figure[Facts], ...] = (
    Figure(
        "count",
        "Refunds",
        Unit.COUNT,
        "Refunds made or under way.",
        lambda facts: sum(one.count for one in facts.refunds),
    ),
    Figure(
        "amount",
        "Refunded",
        Unit.MONEY,
        "Money that these refunds give back.",
        lambda facts: sum(one.amount for one in facts.refunds),
    ),
    Figure(
        "pending",
        "Refunds under way",
        Unit.COUNT,
        "Refunds that the payment provider has not said were made.",
        lambda facts: sum(one.count for one in facts.refunds if one.status == "pending"),
    ),
)

PRESALE: tuple[Figure[Facts], ...] = (
    Figure(
        "deposits",
        "Deposits paid",
        Unit.COUNT,
        "Reservations of which a deposit was paid.",
        lambda facts: facts.all_became.deposits,
    ),
    Figure(
        "deposits_amount",
        "Deposits received",
        Unit.MONEY,
        "All deposits that were paid, given back since or not.",
        lambda facts: facts.all_became.deposits_amount,
    ),
    Figure(
        "completed",
        "Balances completed",
        Unit.COUNT,
        "Of the reservations with a deposit, those that are orders now.",
        lambda facts: facts.all_became.completed,
    ),
    Figure(
        "conversion",
        "Deposit to balance",
        Unit.SHARE,
        "Balances completed by deposits paid.",
        lambda facts: share(facts.all_became.completed, facts.all_became.deposits),
    ),
    Figure(
        "forfeits",
        "Forfeits",
        Unit.COUNT,
        "Reservations whose balance was not paid in its window, and which were not saved by a late payment.",
        lambda facts: facts.all_became.forfeits,
    ),
    Figure(
        "forfeits_amount",
        "Forfeited deposits",
        Unit.MONEY,
        "What was received of forfeited reservations and not given back.",
        lambda facts: facts.all_became.forfeits_amount,
    ),
)

TRADE_IN: tuple[Figure[Facts], ...] = (
    Figure(
        "qualified",
        "Main orders that qualify",
        Unit.COUNT,
        "Main orders, of all that were reported, that meet the campaign's condition as they stand now and "
        "were paid "
        "before it closed.",
        lambda facts: facts.main_orders,
    ),
    Figure(
        "units_granted",
        "Units granted",
        Unit.COUNT,
        "Units that these orders entitle to, by the campaign's present grant.",
        lambda facts: (facts.main_orders or 0) * facts.document["entitlement"]["grants"],
    ),
    Figure(
        "units_used",
        "Units used",
        Unit.COUNT,
        "Units of trade-ins that are held or sold.",
        lambda facts: facts.all_became.units_used,
    ),
    Figure(
        "use",
        "Entitlement use",
        Unit.SHARE,
        "Units used by units granted.",
        lambda facts: share(
            facts.all_became.units_used, (facts.main_orders or 0) * facts.document["entitlement"]["grants"]
        ),
    ),
    Figure(
        "taken_back",
        "Taken back",
        Unit.COUNT,
        "Trade-ins that were cancelled or refunded because their main order no longer entitled to them.",
        lambda facts: facts.all_became.taken_back,
    ),
    Figure(
        "units_taken_back",
        "Units taken back",
        Unit.COUNT,
        "Units of these trade-ins.",
        lambda facts: facts.all_became.units_taken_back,
    ),
)

WAITLIST: tuple[Figure[Facts], ...] = (
    Figure(
        "joined",
        "Places taken",
        Unit.COUNT,
        "How often a place in the waitlist was asked for and given; asking again for one's own place counts "
        "too.",
        lambda facts: facts.happened("waitlisted"),
    ),
    Figure(
        "offered",
        "Offered",
        Unit.COUNT,
        "Reservations that were made for somebody who stood in line.",
        lambda facts: facts.all_became.offered,
    ),
    Figure(
        "paid",
        "Offers paid",
        Unit.COUNT,
        "Of those offered, reservations of which anything was paid.",
        lambda facts: facts.all_became.offered_paid,
    ),
)


def refunds_by_reason(facts: Facts) -> dict[str, Any]:
    """Count and amount of refunds, by reason, the largest first."""
    counts, amounts = Counter[str](), Counter[str]()
    for one in facts.refunds:
        counts[one.reason] += one.count
        amounts[one.reason] += one.amount
    return {name: {"count": counts[name], "amount": amount} for name, amount in amounts.most_common()}
