"""The page: one file that needs nothing else, whatever merchants call their things."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from doorbuster.report.page import page
from settlement.report.facts import Change
from settlement.report.report import Report
from tests.report.made_up import FORMULA, HARM, document, facts, minute

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Reads a page, and finds what is not closed as it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@pytest.fixture(scope="module")
def html() -> str:
    earlier = facts(document=document(id="last-year", title=f"{HARM} & last year"))
    hostile = document(
        offers=[
            {"sku": "phone", "title": HARM, "price": 5000, "stock": 10},
            {"sku": "a-$x_1$", "price": 900, "stock": 5},
        ]
    )
    return page(Report(facts(document=hostile), earlier).to_json())


def test_the_page_is_well_formed(html: str) -> None:
    reader = read(html)
    assert reader.faults == []
    assert reader.open == []
    assert html.startswith("<!doctype html>")


def test_the_page_needs_nothing_else(html: str) -> None:
    assert not re.search(r"https?:|//\w", html)
    tags = read(html).tags
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "#").startswith("#")


def test_what_merchants_call_their_things_is_text(html: str) -> None:
    assert "<script" not in html
    texts = " ".join(read(html).texts)
    assert HARM in texts
    assert FORMULA in texts, "a tier"


def test_every_id_is_there_once_and_what_is_meant_is_there(html: str) -> None:
    ids = [attributes["id"] for _, attributes in read(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    meant = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html))
    assert {one or other for one, other in meant} <= set(ids)


def test_every_picture_says_what_it_shows(html: str) -> None:
    reader = read(html)
    pictures = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(pictures) == 6, "requests, levels, funnel, offers, presale, beside"
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
        assert "viewbox" in attributes
    assert html.count("<desc>") == len(pictures)


def test_pictures_take_the_pages_colours(html: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--ink)" in drawn
    assert "#1b1f24" not in drawn


@pytest.mark.parametrize(
    "changes",
    [
        {"visitors": None, "participants": None, "traffic": {}},
        {"minutes": {}, "changes": {}, "steps": {}, "became": {}, "sold_out": {}, "first_at": None},
        {"document": document(kind="flash_sale", currency="JPY")},
        {"document": document(kind="trade_in", entitlement={"grants": 1}), "main_orders": 4},
        {"document": document(opens_at="0001-01-01T00:00:00Z")},
        {"document": document(opens_at="9999-12-30T00:00:00Z", closes_at="9999-12-31T00:00:00Z")},
    ],
)
def test_whatever_there_is_to_say_there_is_a_page(changes: dict[str, Any]) -> None:
    assert read(page(Report(facts(**changes)).to_json())).faults == []


def drawn(html: str) -> list[str]:
    """What is written in the pictures."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", html)


def test_names_leave_room_for_what_is_drawn() -> None:
    names = [f"{number}-{'long' * 20}"[:64] for number in range(8)]
    steps = {name: {minute(0): Change(10, 5), minute(1): Change(0, 5)} for name in names}
    long = facts(
        document=document(id=names[0], offers=[{"sku": name, "price": 1, "stock": 10} for name in names]),
        steps=steps,
    )
    found = drawn(page(Report(long, long).to_json()))
    assert max(map(len, found)) <= len("minutes from the opening")
    assert any(text.startswith("7-long") for text in found)


def test_what_is_counted_is_marked_in_whole_numbers() -> None:
    once = facts(minutes={minute(0): (1, 1, 1)}, traffic={(minute(0), "held"): 1}, changes={})
    found = drawn(page(Report(once).to_json()))
    assert not [text for text in found if re.fullmatch(r"\d+\.\d+", text)]


def test_weeks_before_the_opening_do_not_hide_it() -> None:
    """A campaign is made, and looked at, long before."""
    week = {(minute(-number), "visit"): 1 for number in range(5, 10_000)}
    later = {(minute(20_000), "ended"): 1, (minute(1), "sold_out"): 70}
    early = facts(traffic=week | later)
    html = page(Report(early, early).to_json())
    assert not [text for text in drawn(html) if re.fullmatch(r"−?\d{4,}", text)], "minutes from the opening"
    table = html[html.index('<details class="minutes">') :]
    assert "2026-11-11 00:02:00 UTC" in table, "the minutes of the sale"
    assert "240 of " in table


def test_a_refund_a_month_later_does_not_flatten_what_was_left() -> None:
    steps = {"phone": {minute(1): Change(10, 9), minute(2): Change(0, 1), minute(43_200): Change(0, -1)}}
    found = drawn(page(Report(facts(steps=steps)).to_json()))
    assert "seconds from the opening" in found or "minutes from the opening" in found
    assert "days from the opening" not in found
