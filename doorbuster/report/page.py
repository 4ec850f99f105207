"""The report as one HTML file: it needs no other file, no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from doorbuster.report.pictures import pictures
from doorbuster.report.shown import Json, change, instant, name_of, shown, window
from settlement.report.figure import Unit
from settlement.report.report import SECTIONS, TABLES

MINUTES_MAX = 240
"""Shown. The CSV files have all."""
_MINUTES_BEFORE = 10
"""The opening, of these, where there are more."""
_HEADLINES = ("summary.gmv", "summary.orders", "summary.units_sold", "summary.visitors", "summary.sold_out_s")
_HEADLINES_BY_KIND = {"presale": "presale.conversion", "trade_in": "trade_in.use"}
_TITLES = {
    "summary": "The whole",
    "presale": "Presale",
    "trade_in": "Trade-in",
    "waitlist": "Waitlist",
    "refunds": "Refunds",
}
_ROWS = {"offers": "Offers", "tiers": "Tiers", "gifts": "Gifts"}


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"change": change, "instant": instant, "window": window}
    return environment.from_string((files("doorbuster") / "report" / "page.html").read_text("utf-8"))


def page(report: Json) -> str:
    """The page."""
    campaign, compared = report["campaign"], report["compared"]
    currency = campaign["currency"]

    def said(value: Any, unit: Unit, of: str = currency) -> str:
        return shown(value, unit, of)

    headlines = [*_HEADLINES, _HEADLINES_BY_KIND.get(campaign["kind"], "summary.average_order_value")]
    return _template().render(
        report=report,
        campaign=campaign,
        name=name_of(campaign),
        earlier=compared and compared["campaign"],
        earlier_name=compared and name_of(compared["campaign"]),
        beside=(compared or {}).get("figures", {}),
        sections=[
            (part, title, SECTIONS[part]) for part, title in _TITLES.items() if report[part] is not None
        ],
        tables=[(part, title, TABLES[part]) for part, title in _ROWS.items() if report[part]],
        headlines=[(path, *path.split("."), _figure(path)) for path in headlines],
        minutes=TABLES["minutes"],
        told=_told(report["minutes"]),
        pictures=pictures(report),
        said=said,
        Unit=Unit,
    )


def _told(minutes: Sequence[Json]) -> Sequence[Json]:
    """The minutes that are shown: not of the weeks before the opening, where there is no room for all."""
    before = sum(one["from_opening"] < 0 for one in minutes)
    first = max(0, min(before - _MINUTES_BEFORE, len(minutes) - MINUTES_MAX))
    return minutes[first : first + MINUTES_MAX]


def _figure(path: str) -> Any:
    part, _, name = path.partition(".")
    return next(figure for figure in SECTIONS[part] if figure.name == name)
