"""The report as CSV files, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from doorbuster.money import decimal
from doorbuster.report.shown import Json
from settlement.report.figure import Figure, Unit
from settlement.report.report import SECTIONS, TABLES

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula. SKUs, titles and tiers are not ours."""


def tables(report: Json) -> Mapping[str, str]:
    """By file name, what is in it: numbers plain, money in whole units of the currency, unknown is empty."""
    currency = report["campaign"]["currency"]
    found = {"summary.csv": _csv(_summary(report))}
    for part in ("funnel", "offers", "tiers", "gifts", "minutes"):
        found[f"{part}.csv"] = _rows(part, report[part], currency)
    if report["compared"] is not None:
        earlier = report["compared"]
        found["earlier_minutes.csv"] = _rows("minutes", earlier["minutes"], earlier["campaign"]["currency"])
    refusals = (report["refusals"] or {}).items()
    found["refusals.csv"] = _csv([["code", "requests"], *([cell(code), times] for code, times in refusals)])
    refunds = report["refunds"]["by_reason"].items()
    reasons = [[cell(why), one["count"], decimal(one["amount"], currency)] for why, one in refunds]
    found["refunds.csv"] = _csv([["reason", "count", "amount"], *reasons])
    return found


def _rows(part: str, rows: Iterable[Json], currency: str) -> str:
    figures = TABLES[part]
    cells = [[cell(row[figure.name], figure.unit, currency) for figure in figures] for row in rows]
    return _csv([[figure.name for figure in figures], *cells])


def cell(value: Any, unit: Unit = Unit.NAME, currency: str = "") -> Any:
    """A value as a spreadsheet reads it: a text that begins like a formula is a text all the same."""
    if value is None:
        return ""
    if unit is Unit.MONEY:
        return decimal(value, currency)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _summary(report: Json) -> Iterable[list[Any]]:
    compared = report["compared"]
    yield [
        "part",
        "figure",
        "title",
        "value",
        "unit",
        *(["earlier", "change"] if compared else []),
        "definition",
    ]
    campaign = report["campaign"]
    for name in ("id", "kind", "title", "currency", "status", "opens_at", "closes_at"):
        earlier = [cell(compared["campaign"][name]), ""] if compared else []
        yield ["campaign", name, "", cell(campaign[name]), "", *earlier, ""]
    yield ["campaign", "as_of", "", cell(report["as_of"]), "", *(["", ""] if compared else []), ""]
    for part, figures in SECTIONS.items():
        if report[part] is not None:
            yield from (_figure(report, part, figure) for figure in figures)


def _figure(report: Json, part: str, figure: Figure[Any]) -> list[Any]:
    compared, currency = report["compared"], report["campaign"]["currency"]
    beside: list[Any] = []
    if compared:
        found = compared["figures"][f"{part}.{figure.name}"]
        earlier = cell(found["earlier"], figure.unit, compared["campaign"]["currency"])
        beside = [earlier, cell(found["change"])]
    value = cell(report[part][figure.name], figure.unit, currency)
    unit = currency if figure.unit is Unit.MONEY else str(figure.unit)
    return [part, figure.name, figure.title, value, unit, *beside, figure.definition]


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue()
