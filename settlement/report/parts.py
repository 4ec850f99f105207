"""The figures of a campaign's parts: its funnel, offers, tiers, gifts and minutes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from reservation.campaign import ms_of, rfc3339
from settlement.report.facts import NOT_REFUSALS, NOT_REQUESTS, Became, Change, Facts, Refunds, total
from settlement.report.figure import Figure, Unit, share
from settlement.report.figures import participants, visitors

K = TypeVar("K")
V = TypeVar("V")
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the funnel."""

    name: str
    people: int | None
    before: int | None
    first: int | None


STEP: tuple[Figure[Step], ...] = (
    Figure(
        "step",
        "Step",
        Unit.NAME,
        "visitors, participants, then users who reserved, who paid anything (a deposit, or all), and who "
        "have an order.",
        lambda step: step.name,
    ),
    Figure("people", "People", Unit.COUNT, "Different people who came so far.", lambda step: step.people),
    Figure(
        "of_previous",
        "Of the step before",
        Unit.SHARE,
        "People by those of the step before; null where either is not known.",
        lambda step: share(step.people, step.before),
    ),
    Figure(
        "of_first",
        "Of visitors",
        Unit.SHARE,
        "People by visitors; null where either is not known.",
        lambda step: share(step.people, step.first),
    ),
)


def funnel(facts: Facts) -> Iterator[Step]:
    """From who looked to who has an order."""
    counts = {
        "visitors": visitors(facts),
        "participants": participants(facts),
        "reserved": facts.reservers,
        "paid": facts.payers,
        "confirmed": facts.buyers,
    }
    before, first = None, counts["visitors"]
    for name, people in counts.items():
        yield Step(name, people, before, first)
        before = people


@dataclass(frozen=True, slots=True)
class Part:
    """What became of the reservations of one offer or tier."""

    facts: Facts
    name: str | None
    became: Became
    refunds: int
    refunds_amount: int
    offer: dict[str, Any]
    """Of the campaign's document as it is now; nothing for a tier, or an offer that was taken off it."""


_SOLD: tuple[Figure[Part], ...] = (
    Figure(
        "reservations",
        "Reservations",
        Unit.COUNT,
        "Reservations made.",
        lambda part: part.became.reservations,
    ),
    Figure(
        "units_reserved",
        "Units reserved",
        Unit.COUNT,
        "Units of these, in the quantity that each had last.",
        lambda part: part.became.units,
    ),
    Figure(
        "expired",
        "Holds expired",
        Unit.COUNT,
        "Of these, holds that expired unpaid.",
        lambda p: p.became.expired,
    ),
    Figure(
        "orders",
        "Orders",
        Unit.COUNT,
        "Of these, orders: paid in full, and standing.",
        lambda p: p.became.orders,
    ),
    Figure(
        "units_sold", "Units sold", Unit.COUNT, "Units of the orders.", lambda part: part.became.units_sold
    ),
    Figure("gmv", "GMV", Unit.MONEY, "What the orders cost their buyers.", lambda part: part.became.gmv),
    Figure("refunds", "Refunds", Unit.COUNT, "Refunds made or under way.", lambda part: part.refunds),
    Figure(
        "refunds_amount",
        "Refunded",
        Unit.MONEY,
        "Money that they give back.",
        lambda part: part.refunds_amount,
    ),
)

OFFER: tuple[Figure[Part], ...] = (
    Figure("sku", "Offer", Unit.NAME, "The offer's SKU.", lambda part: part.name),
    Figure(
        "title",
        "Title",
        Unit.NAME,
        "The offer's title, where it has one.",
        lambda part: part.offer.get("title"),
    ),
    Figure(
        "price",
        "Price",
        Unit.MONEY,
        "Of one unit now; null for an offer that was taken off.",
        lambda p: p.offer.get("price"),
    ),
    Figure(
        "stock",
        "Stock",
        Unit.COUNT,
        "Units that there are to sell, by the campaign's last change; null for an offer that was taken off.",
        lambda part: part.offer.get("stock"),
    ),
    *_SOLD,
    Figure(
        "sell_through",
        "Sell-through",
        Unit.SHARE,
        "Units sold by stock.",
        lambda part: share(part.became.units_sold, part.offer.get("stock")),
    ),
    Figure(
        "sold_out_at",
        "Sold out at",
        Unit.INSTANT,
        "The first instant at which as many units were held or sold as there were; null if there was none.",
        lambda part: _instant(part.facts.sold_out.get(part.name or "")),
    ),
    Figure(
        "sold_out_s",
        "Time to sold-out",
        Unit.SECONDS,
        "From the opening to that instant; null if there was none.",
        lambda part: _sold_out_s(part),
    ),
)

TIER: tuple[Figure[Part], ...] = (
    Figure(
        "tier",
        "Tier",
        Unit.NAME,
        "The tier that a user's token named when they reserved; null where it named none.",
        lambda part: part.name,
    ),
    *_SOLD,
)


def offers(facts: Facts) -> Iterator[Part]:
    """Its offers, in the document's order, then those that were taken off it."""
    documents = {offer["sku"]: offer for offer in facts.document["offers"]}
    became = _grouped((sku, one) for (sku, _), one in facts.became.items())
    refunds = _grouped((one.sku, one) for one in facts.refunds)
    for sku in (*documents, *sorted(became.keys() - documents.keys())):
        yield _part(facts, sku, became[sku], refunds[sku], documents.get(sku, {}))


def tiers(facts: Facts) -> Iterator[Part]:
    """Tiers that reserved anything; who has none comes last."""
    became = _grouped((tier, one) for (_, tier), one in facts.became.items())
    refunds = _grouped((one.tier, one) for one in facts.refunds)
    for tier in sorted(became, key=lambda name: (name is None, name)):
        yield _part(facts, tier, became[tier], refunds[tier], {})


def _part(
    facts: Facts, name: str | None, became: list[Became], refunds: list[Refunds], offer: dict[str, Any]
) -> Part:
    count, amount = sum(one.count for one in refunds), sum(one.amount for one in refunds)
    return Part(facts, name, total(became), count, amount, offer)


def _grouped(found: Iterable[tuple[K, V]]) -> defaultdict[K, list[V]]:
    """Once for all: there may be a thousand offers, and as many tiers."""
    groups: defaultdict[K, list[V]] = defaultdict(list)
    for name, one in found:
        groups[name].append(one)
    return groups


@dataclass(frozen=True, slots=True)
class Gift:
    sku: str
    gift: str
    promised: int | None
    given: int


GIFT: tuple[Figure[Gift], ...] = (
    Figure("sku", "Offer", Unit.NAME, "The offer that the gift comes with.", lambda gift: gift.sku),
    Figure("gift", "Gift", Unit.NAME, "The gift's SKU.", lambda gift: gift.gift),
    Figure(
        "promised",
        "Promised",
        Unit.COUNT,
        "To so many first payers, by the campaign's last change; null for a gift that was taken off.",
        lambda gift: gift.promised,
    ),
    Figure(
        "given",
        "Given",
        Unit.COUNT,
        "Gifts of reservations whose deposit is paid, or that are orders.",
        lambda gift: gift.given,
    ),
)


def gifts(facts: Facts) -> Iterator[Gift]:
    promised = {
        (offer["sku"], gift["sku"]): gift["first"]
        for offer in facts.document["offers"]
        for gift in offer.get("gifts") or ()
    }
    for sku, gift in dict.fromkeys((*promised, *facts.gifts)):
        yield Gift(sku, gift, promised.get((sku, gift)), facts.gifts.get((sku, gift), 0))


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute in which anything happened."""

    at: datetime
    from_opening: int
    visits: int | None
    requests: int | None
    refused: int | None
    reserved: int
    units_reserved: int
    paid: int
    change: Change
    left: int


MINUTE: tuple[Figure[Minute], ...] = (
    Figure(
        "minute",
        "Minute",
        Unit.INSTANT,
        "Its beginning, UTC; minutes in which nothing happened are left out.",
        lambda minute: _instant(minute.at),
    ),
    Figure(
        "from_opening",
        "Minutes from opening",
        Unit.COUNT,
        "Whole minutes between the minute of the opening and this one; negative before it.",
        lambda minute: minute.from_opening,
    ),
    Figure("visits", "Visits", Unit.COUNT, "Visits in this minute.", lambda minute: minute.visits),
    Figure(
        "requests",
        "Requests",
        Unit.COUNT,
        "Reservation requests answered in it.",
        lambda minute: minute.requests,
    ),
    Figure("refused", "Refused", Unit.COUNT, "Requests refused in it.", lambda minute: minute.refused),
    Figure("reserved", "Reserved", Unit.COUNT, "Reservations made in it.", lambda minute: minute.reserved),
    Figure(
        "units_reserved",
        "Units reserved",
        Unit.COUNT,
        "Units of these, in the quantity that each had last.",
        lambda minute: minute.units_reserved,
    ),
    Figure("paid", "Payments", Unit.COUNT, "Payments that succeeded in it.", lambda minute: minute.paid),
    Figure(
        "orders",
        "Orders",
        Unit.COUNT,
        "Reservations that became orders in it, less orders that ended in it.",
        lambda minute: minute.change.orders,
    ),
    Figure(
        "units_sold", "Units sold", Unit.COUNT, "Units of these, likewise.", lambda minute: minute.change.sold
    ),
    Figure(
        "gmv", "GMV", Unit.MONEY, "What these cost their buyers, likewise.", lambda minute: minute.change.gmv
    ),
    Figure(
        "units_left",
        "Units left",
        Unit.COUNT,
        "Stock of all offers less what is held and sold, at the end of this minute.",
        lambda minute: minute.left,
    ),
)


def minutes(facts: Facts) -> Iterator[Minute]:
    """Minutes in which anything happened, in their order."""
    visits, requests, refused = Counter[datetime](), Counter[datetime](), Counter[datetime]()
    known = facts.traffic_is_known
    for (minute, what), times in facts.traffic.items() if known else ():
        visits[minute] += times if what == "visit" else 0
        requests[minute] += times if what not in NOT_REQUESTS else 0
        refused[minute] += times if what not in NOT_REFUSALS else 0
    opening = facts.opens_at.replace(second=0, microsecond=0)
    left = 0
    for at in sorted({*visits, *requests, *facts.minutes, *facts.changes}):
        change = facts.changes.get(at, Change())
        left += change.stock - change.taken
        reserved, units, paid = facts.minutes.get(at, (0, 0, 0))
        yield Minute(
            at,
            (at - opening) // _MINUTE,
            visits[at] if known else None,
            requests[at] if known else None,
            refused[at] if known else None,
            reserved,
            units,
            paid,
            change,
            left,
        )


LEVEL: tuple[Figure[tuple[float, Change]], ...] = (
    Figure(
        "after_s",
        "Seconds from opening",
        Unit.SECONDS,
        "From the opening to this instant; negative before it.",
        lambda level: level[0],
    ),
    Figure("stock", "Stock", Unit.COUNT, "Units that there were to sell then.", lambda level: level[1].stock),
    Figure("taken", "Taken", Unit.COUNT, "Units held or sold then.", lambda level: level[1].taken),
    Figure("sold", "Sold", Unit.COUNT, "Units sold then.", lambda level: level[1].sold),
)


def levels(facts: Facts) -> dict[str, list[tuple[float, Change]]]:
    """By offer, how it stood at the end of each step of time in which it changed."""
    most = sorted(facts.steps, key=lambda sku: -sum(change.taken for change in facts.steps[sku].values()))
    found: dict[str, list[tuple[float, Change]]] = {}
    for sku in most:
        stands = Change()
        found[sku] = []
        for at, change in sorted(facts.steps[sku].items()):
            stands.add(change)
            after_s = (at - facts.opens_at).total_seconds()
            found[sku].append((after_s, Change(stands.stock, stands.taken, stands.sold)))
    return found


def _sold_out_s(part: Part) -> float | None:
    at = part.facts.sold_out.get(part.name or "")
    return None if at is None else part.facts.after_opening_s(at)


def _instant(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(ms_of(at))
