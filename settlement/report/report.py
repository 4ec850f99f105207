"""A campaign's report: all figures, as JSON has them, and the definition of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reservation.campaign import ms_of, rfc3339
from reservation.desk import no_campaign
from reservation.outcomes import Refusal
from settlement.report.compare import compared
from settlement.report.facts import Facts
from settlement.report.figure import Figure, T, Unit, values
from settlement.report.figures import PRESALE, REFUNDS, SUMMARY, TRADE_IN, WAITLIST, refunds_by_reason
from settlement.report.parts import (
    GIFT,
    LEVEL,
    MINUTE,
    OFFER,
    STEP,
    TIER,
    funnel,
    gifts,
    levels,
    minutes,
    offers,
    tiers,
)
from settlement.report.reader import ReportReader

Json = dict[str, Any]
SECTIONS: Mapping[str, tuple[Figure[Facts], ...]] = {
    "summary": SUMMARY,
    "refunds": REFUNDS,
    "presale": PRESALE,
    "trade_in": TRADE_IN,
    "waitlist": WAITLIST,
}
"""Figures of the whole, by the part of a report that has them."""
TABLES: Mapping[str, tuple[Figure[Any], ...]] = {
    "funnel": STEP,
    "offers": OFFER,
    "tiers": TIER,
    "gifts": GIFT,
    "minutes": MINUTE,
    "levels": LEVEL,
}
"""Figures of rows."""
_OF_MAPS = {
    "refusals": "Requests refused, by the code of the refusal (docs/problems.md); null where that is not "
    "known.",
    "refunds.by_reason": "Count and amount of refunds, by why the money went back.",
    "levels": "By offer, for the offers of which most was taken: how it stood at the end of each step of "
    "time "
    "in which it changed.",
}
UNITS: Mapping[str, Unit] = {
    f"{part}.{figure.name}": figure.unit
    for part, figures in {**SECTIONS, **TABLES}.items()
    for figure in figures
}


def definitions() -> dict[str, str]:
    """By path, what each figure means."""
    found = {
        f"{part}.{figure.name}": figure.definition
        for part, figures in {**SECTIONS, **TABLES}.items()
        for figure in figures
    }
    return found | _OF_MAPS


class Report:
    """What a campaign came to, and an earlier one beside it, if there is one to compare with."""

    def __init__(self, facts: Facts, earlier: Facts | None = None) -> None:
        self._facts = facts
        self._earlier = earlier

    def to_json(self) -> Json:
        found = _figures(self._facts)
        found["definitions"] = definitions()
        found["compared"] = None
        if self._earlier is not None:
            found["compared"] = compared(found, _figures(self._earlier), UNITS)
        return found


class Reporter:
    """Makes reports from the book."""

    def __init__(self, reader: ReportReader) -> None:
        self._reader = reader

    async def report(self, campaign: str, earlier: str | None = None) -> Report | Refusal:
        """The report, or which campaign there is none of. Raises BookUnavailable."""
        named = [campaign] if earlier is None else [campaign, earlier]
        found = await self._reader.read(*named)
        for name, facts in zip(named, found, strict=True):
            if facts is None:
                return no_campaign(name)
        return Report(*(facts for facts in found if facts is not None))


def _figures(facts: Facts) -> Json:
    document = facts.document
    refused = facts.refused()
    return {
        "campaign": {
            "id": document["id"],
            "kind": document["kind"],
            "title": document.get("title"),
            "currency": document["currency"],
            "status": facts.status,
            "opens_at": document["opens_at"],
            "closes_at": document["closes_at"],
        },
        "as_of": rfc3339(ms_of(facts.as_of)),
        "summary": values(SUMMARY, facts),
        "refusals": None if refused is None else dict(refused.most_common()),
        "funnel": _rows(STEP, funnel(facts)),
        "refunds": {**values(REFUNDS, facts), "by_reason": refunds_by_reason(facts)},
        "presale": values(PRESALE, facts) if document["kind"] == "presale" else None,
        "trade_in": values(TRADE_IN, facts) if "entitlement" in document else None,
        "gifts": _rows(GIFT, gifts(facts)),
        "waitlist": values(WAITLIST, facts),
        "offers": _rows(OFFER, offers(facts)),
        "tiers": _rows(TIER, tiers(facts)),
        "minutes": _rows(MINUTE, minutes(facts)),
        "levels": {sku: _rows(LEVEL, found) for sku, found in levels(facts).items()},
    }


def _rows(figures: tuple[Figure[T], ...], found: Iterable[T]) -> list[Json]:
    return [values(figures, one) for one in found]
