"""An earlier campaign's figures beside a report's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from settlement.report.figure import Unit

Json = dict[str, Any]


def compared(now: Json, earlier: Json, units: Mapping[str, Unit]) -> Json:
    """By path, what a figure of the whole was and its change, as a share of what it was. Money in another
    currency is not compared: it is null. Minutes count from each opening, so they stand beside each other."""
    same_currency = now["campaign"]["currency"] == earlier["campaign"]["currency"]
    figures = {}
    for path, unit in units.items():
        part, _, name = path.partition(".")
        if not isinstance(now.get(part), dict) or name not in now[part]:
            continue
        value, before = now[part][name], (earlier[part] or {}).get(name)
        if unit is Unit.MONEY and not same_currency:
            before = None
        figures[path] = {"now": value, "earlier": before, "change": _change(value, before)}
    money = {path.removeprefix("minutes.") for path, unit in units.items() if unit is Unit.MONEY}
    minutes = [
        {name: None if name in money and not same_currency else value for name, value in minute.items()}
        for minute in earlier["minutes"]
    ]
    return {"campaign": earlier["campaign"], "figures": figures, "minutes": minutes}


def _change(now: float | None, before: float | None) -> float | None:
    if now is None or not before:
        return None
    return round((now - before) / before, 6)
