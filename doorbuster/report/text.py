"""The report in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from doorbuster.report.shown import UNKNOWN, Json, change, instant, name_of, shown, window
from settlement.report.figure import Figure, Unit
from settlement.report.report import SECTIONS

OFFERS_MAX = 20
"""Shown here. The other forms have all."""
_TITLES = {"presale": "Presale", "trade_in": "Trade-in", "waitlist": "Waitlist", "refunds": "Refunds"}


def text(report: Json) -> str:
    """The report as a person reads it."""
    return "\n".join(_lines(report))


def _lines(report: Json) -> Iterator[str]:
    campaign = report["campaign"]
    currency = campaign["currency"]
    yield f"{name_of(campaign)} ({campaign['id']}), {campaign['kind']}"
    yield f"  {window(campaign)}"
    yield f"  as of {instant(report['as_of'])}, from PostgreSQL"
    compared = report["compared"]
    if compared is not None:
        yield f"  beside {name_of(compared['campaign'])} ({compared['campaign']['id']}), and the change"
    for part, figures in SECTIONS.items():
        if report[part] is None or (part in ("waitlist", "refunds") and not any(_numbers(report[part]))):
            continue
        if part in _TITLES:
            yield f"\n{_TITLES[part]}"
        yield from _figures(report, part, figures)
    yield "\nFunnel"
    for step in report["funnel"]:
        people, of = (shown(step["people"], Unit.COUNT, currency), shown(step["of_previous"], Unit.SHARE, ""))
        yield f"  {step['step']:<26}{people:>18}" + (f"{of:>11} of the step before" if of != UNKNOWN else "")
    if report["refusals"]:
        yield "\nRefused"
        yield from (f"  {code:<26}{times:>18,}" for code, times in report["refusals"].items())
    if report["refunds"]["by_reason"]:
        yield "\nRefunds by reason"
        for reason, found in report["refunds"]["by_reason"].items():
            amount = shown(found["amount"], Unit.MONEY, currency)
            yield f"  {reason:<26}{found['count']:>18,} {amount:>19}"
    for gift in report["gifts"]:
        promised = shown(gift["promised"], Unit.COUNT, currency)
        yield f"\nGift {gift['gift']} with {gift['sku']}: {gift['given']:,} of {promised} given"
    yield from _offers(report["offers"], currency)


def _numbers(found: Json) -> Iterator[int]:
    return (value for value in found.values() if isinstance(value, int))


def _figures(report: Json, part: str, figures: Sequence[Figure[Any]]) -> Iterator[str]:
    currency, compared = report["campaign"]["currency"], report["compared"]
    for figure in figures:
        line = f"  {figure.title:<25} {shown(report[part][figure.name], figure.unit, currency):>18}"
        beside = compared and compared["figures"].get(f"{part}.{figure.name}")
        if beside:
            earlier = shown(beside["earlier"], figure.unit, compared["campaign"]["currency"])
            line += f" {earlier:>19} {change(beside['change']):>11}"
        yield line


def _offers(offers: list[Json], currency: str) -> Iterator[str]:
    yield f"\n{'Offer':<25} {'stock':>7} {'sold':>7} {'sell-through':>13} {'GMV':>19}  sold out after"
    for offer in offers[:OFFERS_MAX]:
        stock, gmv = shown(offer["stock"], Unit.COUNT, ""), shown(offer["gmv"], Unit.MONEY, currency)
        through, after = shown(offer["sell_through"], Unit.SHARE, ""), offer["sold_out_s"]
        yield (
            f"{offer['sku']:<25} {stock:>7} {offer['units_sold']:>7,} {through:>13} {gmv:>19}"
            f"  {shown(after, Unit.SECONDS, '')}"
        )
    if len(offers) > OFFERS_MAX:
        yield f"and {len(offers) - OFFERS_MAX:,} more; --csv and --json have all"
