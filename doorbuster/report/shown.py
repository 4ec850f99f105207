"""Figures as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from doorbuster.money import money
from settlement.report.figure import Unit

UNKNOWN = "–"
Json = dict[str, Any]


def shown(value: Any, unit: Unit, currency: str) -> str:
    """A figure's value with its unit."""
    if value is None:
        return UNKNOWN
    if unit is Unit.MONEY:
        return money(value, currency)
    if unit is Unit.SHARE:
        return f"{100 * value:.1f} %"
    if unit is Unit.SECONDS:
        return duration(value)
    if unit is Unit.INSTANT:
        return instant(value)
    return f"{value:,}" if unit is Unit.COUNT else str(value)


def duration(seconds: float) -> str:
    """As people say it: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 6 d 2 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts: list[str] = []
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if whole >= size or parts:
            count, whole = divmod(whole, size)
            parts.append(f"{count} {name}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def instant(text: str) -> str:
    """A time of the wire, to the second."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")


def change(value: float | None) -> str:
    """By how much something changed."""
    return UNKNOWN if value is None else f"{100 * value:+.1f} %"


def name_of(campaign: Json) -> str:
    return str(campaign["title"] or campaign["id"])


def window(campaign: Json) -> str:
    """From when to when it is open; and what its operator has said of it, if that was not to go on."""
    said = "" if campaign["status"] == "running" else f", {campaign['status']} by its operator"
    return f"{instant(campaign['opens_at'])} to {instant(campaign['closes_at'])}{said}"
