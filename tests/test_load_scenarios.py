"""The scenarios of the load test, what they ask of a run, and its report; without Locust."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadtests.documents import sale_document
from loadtests.report import Run, html, write_report
from loadtests.scenarios import ALL, RAMP, SCENARIOS, Scenario, restock_at, windows_of
from loadtests.stages import Sizes, Stage, start_of
from loadtests.thresholds import Checked, Limits, check, climb
from loadtests.timeline import (
    POINTS_MAX,
    UNEXPECTED,
    Row,
    Timeline,
    by_second,
    count,
    percentile_ms,
    rounded,
    width_of,
)
from loadtests.weights import HABITS, in_turn, parse_weights, weights_of
from reservation.catalog import parse_campaign

# --- Scenarios ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ALL, ids=SCENARIOS)
def test_every_scenario_sells_a_campaign_that_the_service_takes(scenario: Scenario) -> None:
    stages = scenario.shape(scenario.sizes)
    windows = windows_of(scenario.kind, stages)

    campaign = parse_campaign(
        sale_document("load-1", scenario.kind, scenario.goods, windows, datetime.now(UTC))
    )

    assert campaign.kind == scenario.kind
    assert 55 <= sum(stage.seconds for stage in stages) <= 90


@pytest.mark.parametrize("scenario", ALL, ids=SCENARIOS)
def test_windows_are_in_order_however_short_the_stages_are(scenario: Scenario) -> None:
    windows = windows_of(scenario.kind, scenario.shape(Sizes(peak_users=1)))

    assert windows.opens < windows.closes
    if windows.balance_opens is not None and windows.balance_closes is not None:
        assert windows.closes <= windows.balance_opens < windows.balance_closes


def users(name: str, sizes: Sizes) -> list[int]:
    return [stage.users for stage in SCENARIOS[name].shape(sizes)]


def test_each_shape_is_what_it_is_called() -> None:
    sizes = Sizes(100, steps=4)

    assert users("flash-sale", sizes) == [5, 100, 50, 5]
    assert users("presale", sizes) == [5, 100, 50, 50, 100, 5]
    assert users("double-peak", sizes) == [5, 100, 25, 100, 5]
    assert users("soak", sizes) == [5, 100, 5]
    assert users("ramp", sizes) == [5, 25, 50, 75, 100]
    assert users("sold-out-storm", sizes) == [5, 25, 100, 5]


def test_more_is_put_on_sale_with_the_second_peak_and_only_then() -> None:
    found = {name: restock_at(one, one.shape(one.sizes)) for name, one in SCENARIOS.items()}

    double = SCENARIOS["double-peak"]
    assert found.pop("double-peak") == start_of(double.shape(double.sizes), "second spike") == 40
    assert set(found.values()) == {None}


# --- Weights ------------------------------------------------------------------------------------


def test_weights_are_changed_one_by_one() -> None:
    found = weights_of("flash_sale", {"bot": 0}, parse_weights(" pay=6.5, give_up=0,amend=3 "))

    assert (found["pay"], found["give_up"], found["bot"]) == (6.5, 0, 0)
    assert "amend" not in found, "nobody amends a flash sale"
    assert found["stampede"] == HABITS["flash_sale"]["stampede"]


@pytest.mark.parametrize("text", ["pay", "pay=", "pay=-1", "pay=inf", "pay=nan", "dance=1", "=3"])
def test_a_weight_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"weight|nothing that shoppers do"):
        parse_weights(text)


def test_shoppers_who_would_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        weights_of("flash_sale", dict.fromkeys(HABITS["flash_sale"], 0))


def test_what_comes_first_comes_in_proportion_to_its_weight_and_what_weighs_nothing_never() -> None:
    weights = {"pay": 3.0, "browse": 1.0, "bot": 0.0}
    first = Counter(next(in_turn(weights)) for _ in range(4_000))

    assert set(in_turn(weights)) == {"pay", "browse"}
    assert 2_700 < first["pay"] < 3_300


# --- The timeline -------------------------------------------------------------------------------


def test_rows_of_workers_add_up() -> None:
    worker, master = Timeline(), Timeline()
    worker.note(100.9, "reserve", "held", 12.4)
    worker.note(100.1, "reserve", "held", 11.8)
    worker.note(101.0, "reserve", "sold_out", 1234)

    master.add(json.loads(json.dumps(worker.take())))  # as plain values, over the wire
    master.add(worker.take())  # nothing new since

    assert sorted(master.rows()) == [
        (100, "reserve", "held", 12, 2),
        (101, "reserve", "sold_out", 1200, 1),
    ]
    assert by_second(master.rows(), lambda row: row[2]) == {"held": {100: 2}, "sold_out": {101: 1}}


def test_a_long_test_takes_no_more_points_than_a_short_one() -> None:
    timeline = Timeline()
    timeline.begin(width_of(24 * 3600))
    for second in range(24 * 3600):
        timeline.note(second, "browse", "changed", 1)

    assert count(timeline.rows()) == 24 * 3600
    assert len(timeline.rows()) <= POINTS_MAX
    assert width_of(60) == 1


def test_percentiles_are_what_so_many_took_at_most() -> None:
    rows: list[Row] = [(0, "reserve", "held", ms, 1) for ms in range(1, 101)]

    assert [percentile_ms(rows, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile_ms([], 99) is None
    assert [rounded(ms) for ms in (0.4, 7, 99, 104, 1_249)] == [0, 7, 99, 100, 1_200]


# --- Thresholds ---------------------------------------------------------------------------------


def rows_of(*parts: tuple[str, int, int], at: int = 0) -> list[Row]:
    """Rows of reserving: outcome, ms, how often."""
    return [(at, "reserve", outcome, ms, times) for outcome, ms, times in parts]


def broken(checked: list[Checked]) -> list[str]:
    return [one.name for one in checked if not one.kept]


@pytest.mark.parametrize(
    ("rows", "limits", "names"),
    [
        (rows_of(("held", 20, 99), ("overloaded", 9, 1)), Limits(), []),
        (rows_of(("held", 20, 99), (UNEXPECTED, 9, 1)), Limits(), ["answers outside the contract"]),
        (rows_of(("held", 20, 99), (UNEXPECTED, 9, 1)), Limits(failures_share=0.01), []),
        (rows_of(("held", 20, 90), ("overloaded", 9, 10)), Limits(), ["told to come back later"]),
        (rows_of(("held", 20, 97), ("held", 3000, 3)), Limits(), ["reserve, p99"]),
        (rows_of(("held", 20, 100)), Limits(requests_per_s=11), ["requests"]),
        ([], Limits(), []),
    ],
)
def test_a_threshold_that_is_broken_is_named(rows: list[Row], limits: Limits, names: list[str]) -> None:
    checked = check(rows, limits, seconds=10)

    assert broken(checked) == names
    assert [str(one).endswith("BROKEN") for one in checked] == [not one.kept for one in checked]


STEPS = (Stage("warm-up", 2, 1), Stage("step 1", 4, 10), Stage("step 2", 4, 20), Stage("step 3", 4, 30))


def climbing(*ms: int) -> list[Row]:
    """As many requests in every second of each step, each of which took so long."""
    return [
        row
        for step, took in enumerate(ms)
        for second in range(102 + 4 * step, 106 + 4 * step)
        for row in rows_of(("held", took, 10), at=second)
    ]


def test_a_ramp_ends_at_the_first_step_that_breaks_and_names_the_last_that_held() -> None:
    rows = climbing(20, 20, 5000)

    found = climb(rows, STEPS, Limits(), began_s=100.0, known_until_s=114.0)

    assert (found.held, found.broke) == (STEPS[2], STEPS[3])
    assert found.lines()[0] == "ramp: 20 shoppers (step 2) held; broke at 30 (step 3):"
    assert broken(found.checked) == ["reserve, p99"]
    # As long as not all of a step has come in, nothing is said of it.
    early = climb(rows, STEPS, Limits(), began_s=100.0, known_until_s=113.0)
    assert (early.held, early.broke) == (STEPS[2], None)


def test_a_ramp_that_never_breaks_says_that_the_break_is_beyond() -> None:
    found = climb(climbing(20, 20, 20), STEPS, Limits(), began_s=100.0, known_until_s=999.0)

    assert found.lines() == ["ramp: every step held; the break is beyond 30 shoppers"]


@pytest.mark.parametrize("began_s", [100.0, 100.4, 100.9])
def test_a_step_in_which_nobody_was_answered_has_not_held(began_s: float) -> None:
    steps = (Stage("step 1", 2, 10), Stage("step 2", 2, 20))
    answered = rows_of(("held", 20, 10), at=101)

    found = climb(answered, steps, Limits(), began_s=began_s, known_until_s=999.0)

    assert (found.held, found.broke) == steps
    assert broken(found.checked) == ["requests"]


def test_a_ramp_whose_first_step_breaks_says_so() -> None:
    found = climb(climbing(5000, 20, 20), STEPS, Limits(), began_s=100.0, known_until_s=999.0)

    assert found.held is None
    assert "not even the first held" in found.lines()[0]


# --- The report ---------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would fetch or run, and the ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            local = (value or "").startswith("#")
            if name in ("src", "srcset", "action") or (name.endswith("href") and not local):
                self.fetched.append(value or "")


def run(**changes: object) -> Run:
    rows = [
        (1000 + second, request, outcome, 10 + second, 3)
        for second in range(20)
        for request in ("reserve", "browse", "pay")
        for outcome in ("held", "sold_out", UNEXPECTED)
    ]
    offer = {"sku": "phone", "stock": 5, "held": 0, "sold": 5, "available": 0}
    found = {
        "scenario": RAMP.name,
        "about": RAMP.about,
        "host": "http://127.0.0.1:1",
        "campaign": "load-1",
        "began_s": 1000.4,
        "seconds": 20.0,
        "width_s": 1,
        "rows": rows,
        "stock": {"phone": [(1001.0, 5), (1002.0, 0)]},
        "stages": STEPS,
        "options": {"weights": "pay 6"},
        "checked": check(rows, Limits(), 20),
        "climbed": ["ramp: every step held"],
        "outcomes": [("reserve", "held", 60)],
        "audit": {"ok": True, "campaigns": [{"id": "load-1", "offers": [offer], "violations": []}]},
        "verdict": "load test: passed",
        "passed": True,
    }
    return Run(**(found | changes))  # type: ignore[arg-type]


def test_the_report_is_one_file_with_its_pictures_in_it(tmp_path: Path) -> None:
    page = Page(write_report(run(), tmp_path / "deep" / "report.html").read_text())

    assert page.tags["svg"] == 6, "throughput, three latencies, stock, outcomes"
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert page.fetched == []
    assert [name for name, times in page.ids.items() if times > 1] == [], "each id is there once"


def test_what_the_report_is_told_is_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script>"
    violation = {"invariant": "I2", "detail": evil}
    audit = {"ok": False, "campaigns": [{"id": evil, "offers": [], "violations": [violation]}]}

    text = html(
        run(
            **dict.fromkeys(("verdict", "host", "campaign"), evil),
            options={evil: evil},
            outcomes=[(evil, evil, 1)],
            audit=audit,
            stock={"<b>": [(1001.0, 5)]},
        )
    )

    assert evil not in text
    assert "<b>" not in text


def test_a_run_in_which_nothing_happened_has_a_report() -> None:
    text = html(run(rows=[], stock={}, audit=None, outcomes=[], checked=[], climbed=[]))

    assert "There was none." in text
