"""What the shoppers were told against what became of it. Each check answers with what it found broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from doorbuster.demo.log import Log, View

FINAL = frozenset({"confirmed", "expired", "cancelled", "forfeited", "refunded"})
_BY_TIME = {"held": "expired", "deposit_paid": "forfeited"}
"""What becomes of what its shopper left as it was."""
_TAKEN_BACK = {"held": frozenset({"cancelled", "expired"}), "confirmed": frozenset({"refunded"})}
"""What becomes of what a main order was to entitle to and does not."""


class Violation(NamedTuple):
    """A promise that was broken; `promise` is a key of report.PROMISES."""

    promise: str
    detail: str


def check_answers(log: Log) -> Iterator[Violation]:
    """Every answer is one that the contract names; the same key got the same reservation."""
    for one in log.unexpected:
        yield Violation("API", one)
    for (user, key), ids in log.by_key.items():
        if len(ids) > 1:
            yield Violation("I6", f"{user}'s key {key} made {len(ids)} reservations")


def check_ends(log: Log, ends: Mapping[str, View], lost_orders: Collection[str] = ()) -> Iterator[Violation]:
    """Every acknowledged reservation is in one final state, which its log explains."""
    for name, followed in log.followed.items():
        last, found = followed.last["state"], ends.get(name)
        if found is None:
            yield Violation("I4", f"{name} was acknowledged and is gone")
            continue
        explained = {last, _BY_TIME.get(last, last)}
        if followed.last.get("order_id") in lost_orders:
            explained = set(_TAKEN_BACK.get(last, {last}))
        if found["state"] not in explained & FINAL:
            yield Violation("I4", f"{name} was last seen {last} and is {found['state']}")
    for name in ends.keys() - log.followed.keys():
        yield Violation("I5", f"{name} is there, and nobody was ever told so")


def check_units(ends: Mapping[str, View], offers: list[View]) -> Iterator[Violation]:
    """What was sold is what shoppers have; nothing is held any more; nothing was lost."""
    had = Counter[str]()
    for one in ends.values():
        had[one["sku"]] += one["quantity"] if one["state"] == "confirmed" else 0
    for offer in offers:
        sku, sold = offer["sku"], offer["sold"]
        if offer["held"]:
            yield Violation("I8", f"{sku}: {offer['held']} units are still held")
        if sold != had[sku]:
            yield Violation("I4", f"{sku}: {sold} units sold, shoppers were told of {had[sku]}")
        if sold + offer["held"] + offer["available"] != offer["stock"]:
            yield Violation("I1", f"{sku}: {offer}")


def owed(view: View) -> int:
    """What has been paid for a reservation that ended as it should, and not been given back."""
    price = view["price"]
    if view["state"] == "confirmed":
        saved = sum(one["amount"] for one in price["discounts"])
        return int(price["deposit"] + price["balance"] if price["deposit"] else price["total"] - saved)
    return int(price["deposit"]) if view["state"] in ("deposit_paid", "forfeited") else 0


def check_money(
    log: Log, ends: Mapping[str, View], refunded: Callable[[str], int], contradictions: list[str]
) -> Iterator[Violation]:
    """What the bank took and did not give back is what each shopper owes, to the unit."""
    for name, found in ends.items():
        charged = sum(log.followed[name].charged.values()) if name in log.followed else 0
        if charged - refunded(name) != owed(found):
            yield Violation(
                "I7",
                f"{name} is {found['state']} for {owed(found)}: charged {charged}, back {refunded(name)}",
            )
    for one in contradictions:
        yield Violation("I7", one)


def price_of(document: View, sku: str, quantity: int) -> View:
    """What the campaign's document says that this costs."""
    offer = next(one for one in document["offers"] if one["sku"] == sku)
    total = offer["price"] * quantity
    deposit = offer.get("deposit", 0)
    worth = offer.get("deposit_worth", deposit) * quantity
    steps = [one["save"] for one in document.get("spend_and_save", []) if one["spend"] <= total]
    discounts = [{"code": "spend_and_save", "amount": max(steps)}] if steps else []
    return {
        "currency": document["currency"],
        "unit": offer["price"],
        "total": total,
        "deposit": deposit * quantity,
        "deposit_worth": worth,
        "discounts": discounts,
        "balance": max(0, total - worth - max(steps, default=0)) if deposit else 0,
    }


def check_prices(log: Log, document: View) -> Iterator[Violation]:
    """Prices are what the document says, and what was quoted, to the unit."""
    for followed in log.followed.values():
        for view in followed.views:
            sku, quantity, price = view["sku"], view["quantity"], view["price"]
            for said in (price_of(document, sku, quantity), log.quotes.get((sku, quantity), price)):
                if price != said:
                    yield Violation("API", f"{view['id']}: {quantity} of {sku} cost {price}, not {said}")


def gifts_of(views: Collection[View], sku: str, gift: str) -> int:
    """How many reservations of an offer come with this gift."""
    return sum(
        any(line.get("gift") and line["sku"] == gift for line in view.get("lines", []))
        for view in views
        if view["sku"] == sku
    )


def check_gifts(log: Log, at_gap: Mapping[str, View], document: View) -> Iterator[Violation]:
    """Never more gifts than there are, and all of them when there was demand; seen in the gap."""
    for offer in document["offers"]:
        for gift in offer.get("gifts", []):
            given = gifts_of(at_gap.values(), offer["sku"], gift["sku"])
            mine = {name: log.followed[name] for name, one in at_gap.items() if one["sku"] == offer["sku"]}
            # Once the last one has come back, whoever pays gets one while there is one.
            since = max((one.given_up_at or 0.0 for one in mine.values()), default=0.0)
            demand = sum(
                at_gap[name]["state"] == "deposit_paid" and (one.paid_at or 0.0) > since
                for name, one in mine.items()
            )
            if given > gift["first"] or given < min(gift["first"], demand):
                yield Violation("I9", f"{given} of {gift['first']} {gift['sku']} given, {demand} asked")


def check_line(log: Log) -> Iterator[Violation]:
    """Who stood in line was served in the order in which they came."""
    order = {view["id"]: view["created_at"] for one in log.followed.values() for view in one.views}
    for sku in {place.sku for place in log.line}:
        stayed = [place for place in log.line if place.sku == sku and not place.left]
        served = [place.served for place in stayed]
        if None in served and any(served[served.index(None) :]):
            yield Violation("API", f"{sku}: somebody was served before who stood in front of them")
        times = [order[name] for name in served if name is not None]
        if times != sorted(times):
            yield Violation("API", f"{sku}: the line was not served in its order")


def spent(log: Log, ends_at: datetime) -> Counter[str]:
    """What each user had spent when the campaign ended, by the log."""
    found = Counter[str]()
    for followed in log.followed.values():
        before = [view for view in followed.views if datetime.fromisoformat(view["updated_at"]) < ends_at]
        if before and before[-1]["state"] in ("deposit_paid", "confirmed"):
            found[followed.user] += owed(before[-1])
    return found


def check_ranking(
    ranking: View, mine: Mapping[str, int | None], spends: Mapping[str, int]
) -> Iterator[Violation]:
    """The final ranking is what the log says that users had spent; `mine` is what each was told."""
    entries = ranking["entries"]
    if not ranking["final"]:
        yield Violation("API", "the campaign is over, and its ranking not final")
    expected = sorted((amount for amount in spends.values() if amount), reverse=True)
    if [one["amount"] for one in entries] != expected[: len(entries)]:
        yield Violation("API", f"the ranking says {entries}, the log {expected[: len(entries)]}")
    for user, amount in mine.items():
        if (amount or 0) != spends.get(user, 0):
            yield Violation(
                "API", f"the ranking has {user} with {amount}, the log with {spends.get(user, 0)}"
            )


def check_orders(
    orders: Mapping[str, View], ends: Mapping[str, View], campaign: str, grants: Mapping[str, int]
) -> Iterator[Violation]:
    """No main order entitles to more than it grants, and what was used is what its user has."""
    for order_id, order in orders.items():
        mine = [one for one in ends.values() if one.get("order_id") == order_id]
        units = sum(one["quantity"] for one in mine if one["state"] == "confirmed")
        found = [one for one in order["entitlements"] if one["campaign"] == campaign]
        used, granted = (found[0]["used"], found[0]["granted"]) if found else (0, 0)
        if granted != grants[order_id]:
            yield Violation("I9", f"{order_id} entitles to {granted}, not {grants[order_id]}")
        if units > grants[order_id] or used != units:
            yield Violation("I9", f"{order_id}: {units} units confirmed, {used} used, {granted} granted")
