"""What people and spreadsheets are given: numbers as they read them, and no formula of somebody else's."""

from __future__ import annotations

import csv

import pytest

from doorbuster.money import decimal, money
from doorbuster.report.page import page
from doorbuster.report.shown import duration
from doorbuster.report.tables import cell, tables
from doorbuster.report.text import text
from settlement.report.facts import Became
from settlement.report.report import Report
from tests.report.made_up import FORMULA, document, facts, minute


def test_an_earlier_campaigns_minutes_are_a_table_beside_these() -> None:
    assert "earlier_minutes.csv" not in tables(Report(facts()).to_json())
    found = tables(Report(facts(), facts(minutes={minute(3): (7, 8, 9)})).to_json())
    head, *rows = csv.reader(found["earlier_minutes.csv"].splitlines())
    assert head == next(csv.reader(found["minutes.csv"].splitlines()))
    (third,) = [dict(zip(head, row, strict=True)) for row in rows if row[head.index("from_opening")] == "3"]
    assert (third["reserved"], third["units_reserved"], third["paid"]) == ("7", "8", "9")


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"])
def test_no_text_is_a_formula(first: str) -> None:
    assert cell(f"{first}1+1") == f"'{first}1+1"
    assert cell("1+1") == "1+1"
    assert cell(-3) == -3, "a number stays one"


def test_every_table_is_one_and_none_has_a_formula_in_it() -> None:
    found = tables(Report(facts(), facts()).to_json())
    assert {"summary.csv", "offers.csv", "tiers.csv", "minutes.csv", "refusals.csv"} <= set(found)
    for name, content in found.items():
        head, *rows = list(csv.reader(content.splitlines()))
        assert all(len(row) == len(head) for row in rows), name
        for value in (value for row in rows for value in row):
            assert not value.startswith(("=", "+", "@")), (name, value)
    assert f"'{FORMULA}" in found["offers.csv"]
    assert f"'{FORMULA}" in found["tiers.csv"]
    (gmv,) = [row for row in csv.reader(found["summary.csv"].splitlines()) if row[1] == "gmv"]
    assert gmv[3:5] == ["450.00", "CNY"]
    assert found["refunds.csv"] == "reason,count,amount\r\ncancelled,2,2.00\r\namended,1,1.00\r\n"
    assert found["refusals.csv"] == "code,requests\r\nsold_out,370\r\nquota_exceeded,7\r\n"


def test_the_terminal_shows_what_there_is() -> None:
    said = text(Report(facts(), facts(document=document(id="last-year"))).to_json())
    assert said.splitlines()[1] == "  2026-11-11 00:00:00 UTC to 2026-11-11 01:00:00 UTC"
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "GMV 450.00 CNY 450.00 CNY +0.0 %" in lines
    assert "phone 10 10 100.0 % 450.00 CNY 1 min 23 s" in lines
    assert max(map(len, said.splitlines())) <= 100


def test_numbers_never_run_together_in_the_terminal() -> None:
    large = Became(10**6, 10**9, 10**6, 10**6, 10**9, 10**18)
    offers = [{"sku": "gold", "price": 10**12, "stock": 10**9}]
    report = Report(facts(document=document(offers=offers), became={("gold", None): large})).to_json()
    (offer,) = [line.split() for line in text(report).splitlines() if line.startswith("gold")]
    assert offer[1:5] == ["1,000,000,000", "1,000,000,000", "100.0", "%"]
    assert offer[5:7] == ["10,000,000,000,000,000.00", "CNY"]


@pytest.mark.parametrize("status", ["running", "paused", "closed"])
def test_what_its_operator_ended_is_said(status: str) -> None:
    report = Report(facts(status=status)).to_json()
    for said in (text(report), page(report)):
        assert (f", {status} by its operator" in said) == (status != "running")


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [
        (465_000, "CNY", "4,650.00 CNY"),
        (465_000, "JPY", "465,000 JPY"),
        (465_000, "KWD", "465.000 KWD"),
        (-5, "EUR", "-0.05 EUR"),
        (10**12, "USD", "10,000,000,000.00 USD"),
        (7, "CLF", "0.0007 CLF"),
    ],
)
def test_money_has_its_currencys_decimals(amount: int, currency: str, said: str) -> None:
    assert money(amount, currency) == said
    assert decimal(amount, currency) == said.split()[0].replace(",", "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7_500, "2 h 5 min"),
        (3_605, "1 h"),
        (532_800, "6 d 4 h"),
    ],
)
def test_durations_are_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
