"""docs/metrics.md lists what the code tells Prometheus: no metric more, none less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.documented import documented, gauges_at_scrape, metrics, questions
from tests.test_monitoring import names_defined, promtool


def test_the_page_lists_exactly_what_the_code_defines() -> None:
    defined = {name: (metric._type, frozenset(metric._labelnames)) for name, metric in metrics()}
    listed = documented()
    assert listed.keys() == defined.keys() | gauges_at_scrape().keys()
    for name, (kind, labels) in defined.items():
        assert (listed[name].type, listed[name].labels) == (kind, labels), name
    for name in gauges_at_scrape():
        assert (listed[name].type, listed[name].role) == ("gauge", "gateway, at scrape"), name


def test_each_metric_says_what_it_is_and_in_which_unit() -> None:
    helps = {name: metric._documentation for name, metric in metrics()} | gauges_at_scrape()
    for name, text in helps.items():
        assert text.endswith((".", "well.")), name
        assert re.match(r"doorbuster_[a-z_]+$", name)
    for name, metric in metrics():
        assert name.endswith("_total") == (metric._type == "counter"), name
        if metric._type == "histogram":
            assert name.endswith(("_seconds", "_events", "_commands", "_reservations")), name


def test_no_two_metrics_are_one_family() -> None:
    families = [name.removesuffix("_total") for name in documented()]
    assert len(set(families)) == len(families)


def test_each_line_asks_a_question_and_bounds_its_series() -> None:
    for name, row in documented().items():
        assert "?" in row.question, name
        assert row.series.strip(), name


def test_gauges_of_many_processes_are_of_those_alive() -> None:
    for name, metric in metrics():
        if metric._type == "gauge":
            assert metric._multiprocess_mode.startswith("live"), name


def test_no_label_can_hold_what_somebody_sent() -> None:
    bounded = {
        *("campaign", "sku", "kind"),  # of what a merchant has put on sale
        *("route", "method", "status", "stage", "stream", "state", "type"),  # named in the code
        *("outcome", "reason", "role", "command", "drift"),
    }
    assert set().union(*(row.labels for row in documented().values())) <= bounded


@pytest.mark.parametrize("promql", questions())
def test_every_question_is_promql_about_metrics_that_there_are(promql: str, tmp_path: Path) -> None:
    written = promql.replace("$campaign", "a-sale")
    rules = [{"record": "answer", "expr": written}]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")
    assert set(re.findall(r"doorbuster_\w+", written)) <= names_defined()
