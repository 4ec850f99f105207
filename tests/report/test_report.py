"""Figures and their definitions: none without the other, and what is not known is not 0."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from settlement.report.facts import Became, Refunds
from settlement.report.report import UNITS, Report, definitions
from tests.report.made_up import OPENS, document, facts

DOCS = Path(__file__).parents[2] / "docs" / "reports.md"


def paths(report: dict[str, Any]) -> Iterator[str]:
    """The path of every figure that a report has."""
    for part, found in report.items():
        if part == "levels":
            found = [one for rows in found.values() for one in rows]
        rows = found if isinstance(found, list) else [found]
        yield from (f"{part}.{name}" for row in rows if isinstance(row, dict) for name in row)


def test_every_figure_has_a_definition_and_every_definition_a_figure() -> None:
    found = set(paths(Report(facts()).to_json()))
    trade_in = document(kind="trade_in", entitlement={"skus": ["tv"], "grants": 2})
    found |= set(paths(Report(facts(document=trade_in, main_orders=3)).to_json()))
    not_figures = re.compile(r"(campaign|definitions|refusals|as_of|compared)\b")
    defined = set(definitions()) - {"refusals", "levels"}
    assert {path for path in found if not not_figures.match(path)} == defined
    assert set(UNITS) == defined - {"refunds.by_reason"}


def test_a_definition_is_one_sentence() -> None:
    for path, text in definitions().items():
        assert text.endswith("."), path
        assert text.count(". ") == 0, path


def test_the_documentation_defines_the_same() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.*) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert {path: text for path, _, text in rows} == definitions()
    assert {path: unit for path, unit, _ in rows if path in UNITS} == UNITS


def test_traffic_of_which_nothing_was_noted_is_not_known() -> None:
    report = Report(facts(visitors=None, participants=None, traffic={})).to_json()
    unknown = ("visitors", "visits", "participants", "requests", "refused", "replayed", "quotes")
    assert [report["summary"][name] for name in unknown] == [None] * len(unknown)
    assert report["refusals"] is None
    assert report["waitlist"]["joined"] is None
    assert all(minute["visits"] is None for minute in report["minutes"])
    assert report["funnel"][0]["people"] is report["funnel"][2]["of_previous"] is None
    assert report["summary"]["reservations"] == 21, "what the events say is known all the same"


def test_traffic_that_was_noted_from_the_middle_on_is_not_known() -> None:
    early = OPENS - timedelta(hours=1)
    assert Report(facts(first_at=early)).to_json()["summary"]["visitors"] is None


def test_participants_are_never_fewer_than_have_reserved() -> None:
    assert Report(facts(participants=17, reservers=18)).to_json()["summary"]["participants"] == 18


def test_a_thousand_offers_in_many_tiers_do_not_keep_a_gateway_for_long() -> None:
    """Each reservation's offer and tier are looked at a few times, and not once for each offer."""
    skus, sold = [f"sku-{number}" for number in range(1_000)], Became(2, 2, 1, 1, 1, 100, 100)
    tiers = [f"tier-{number}" for number in range(40)]
    offered = document(offers=[{"sku": sku, "price": 100, "stock": 100} for sku in skus])
    became = {(sku, tier): sold for sku in skus for tier in tiers}
    refunds = [Refunds(sku, tier, "cancelled", "succeeded", 1, 50) for sku, tier in became]
    began = process_time()
    report = Report(facts(document=offered, became=became, refunds=refunds)).to_json()
    assert process_time() - began < 8, "seconds; a minute and more, if each is looked at for each"
    assert report["summary"]["orders"] == 40_000
    assert {(one["orders"], one["refunds_amount"]) for one in report["offers"]} == {(40, 2_000)}
    assert {(one["orders"], one["refunds_amount"]) for one in report["tiers"]} == {(1_000, 50_000)}


def test_nothing_happened_yet() -> None:
    none = {
        "became": {},
        "minutes": {},
        "changes": {},
        "steps": {},
        "sold_out": {},
        "refunds": [],
        "gifts": {},
    }
    zero = dict.fromkeys(("reservers", "payers", "buyers"), 0)
    report = Report(
        facts(**none, **zero, traffic={}, visitors=None, participants=None, first_at=None)
    ).to_json()
    assert report["minutes"] == []
    assert report["summary"]["average_order_value"] is None
    assert report["summary"]["expiry_share"] is None
    assert report["summary"]["gmv"] == 0


def test_a_comparison_has_what_was_and_the_change() -> None:
    earlier = facts(document=document(id="last-year"), reservers=9, visitors=800)
    compared = Report(facts(), earlier).to_json()["compared"]
    assert compared["campaign"]["id"] == "last-year"
    assert compared["figures"]["summary.visitors"] == {"now": 1000, "earlier": 800, "change": 0.25}
    assert [minute["from_opening"] for minute in compared["minutes"]] == [-5, -1, 0, 1, 2]


def test_money_in_another_currency_is_not_compared() -> None:
    compared = Report(facts(), facts(document=document(currency="JPY"))).to_json()["compared"]
    assert compared["figures"]["summary.gmv"] == {"now": 45_000, "earlier": None, "change": None}
    assert compared["figures"]["summary.orders"]["earlier"] == 9
    assert all(minute["gmv"] is None for minute in compared["minutes"])


@pytest.mark.parametrize("kind", ["flash_sale", "trade_in"])
def test_a_presales_figures_are_of_presales_only(kind: str) -> None:
    assert Report(facts(document=document(kind=kind))).to_json()["presale"] is None
