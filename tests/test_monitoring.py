"""What is drawn is measured: dashboards and Prometheus' configuration against the code and each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

import doorbuster.vitals
import gateway.metrics
import gateway.operators
import settlement.metrics
from monitoring import dashboards, panels
from tests.monitoring.promql import GROUPINGS, names, selectors

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "monitoring" / "prometheus"
PROVISIONING = ROOT / "monitoring" / "grafana" / "provisioning"
FILES = sorted(dashboards.DIRECTORY.glob("*.json"))
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}
EXPORTERS = ("up", "ALERTS", "redis_", "pg_", "rabbitmq_", "node_", "process_", "prometheus_")
"""How the names begin that others give Prometheus; tests/monitoring asks the real ones."""

every_dashboard = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def load(file: Path) -> Any:
    return json.loads(file.read_text())


def drawn(dashboard: Any) -> Iterator[Any]:
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries(dashboard: Any) -> Iterator[str]:
    for panel in drawn(dashboard):
        yield from (target["expr"] for target in panel["targets"])


def rules() -> Iterator[str]:
    for file in PROMETHEUS.glob("*.rules.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from (rule["expr"] for rule in group["rules"])


def alerts() -> Iterator[dict[str, Any]]:
    for file in PROMETHEUS.glob("*.rules.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)


def recorded() -> set[str]:
    found = (yaml.safe_load(file.read_text())["groups"] for file in PROMETHEUS.glob("*.rules.yml"))
    return {
        rule["record"] for groups in found for group in groups for rule in group["rules"] if "record" in rule
    }


def unknown(asked: set[str]) -> set[str]:
    """Those that neither our code, nor a rule, nor an exporter gives Prometheus."""
    return {
        name
        for name in asked - names_defined() - recorded()
        if not name.startswith(EXPORTERS) or name.startswith("doorbuster")
    }


def names_defined() -> set[str]:
    """The series that the code gives Prometheus."""
    found = set(re.findall(r'"(doorbuster_\w+)"', Path(gateway.operators.__file__).read_text()))
    for module in (doorbuster.vitals, gateway.metrics, settlement.metrics):
        for metric in vars(module).values():
            if isinstance(metric, Counter | Gauge | Histogram):
                for family in metric.describe():
                    found |= {family.name + suffix for suffix in SUFFIXES[family.type]}
    return found


def promtool(*arguments: str | Path) -> None:
    tool = shutil.which("promtool")
    assert tool is not None, "make test installs promtool, with Debian's package prometheus"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_are_found_as_defined() -> None:
    defined = names_defined()
    assert {"doorbuster_reservations_total", "doorbuster_conservation_drift"} <= defined
    assert "doorbuster_settlement_lag_seconds_bucket" in defined
    asked = (
        'sum by (a) (rate(x_total{b="c {d}"}[5m])) / scalar(sum(y)) or z - on (b) group_left max(w[1h:5s])'
    )
    assert names(asked) == {"x_total", "y", "z", "w"}
    assert selectors(asked) == {'x_total{b="c {d}"}', "y", "z", "w"}


def test_dashboards_are_as_generated() -> None:
    assert {file.name for file in FILES} == dashboards.DASHBOARDS.keys()
    for file in FILES:
        generated = dashboards.text(dashboards.DASHBOARDS[file.name]())
        assert file.read_text() == generated, "run python -m monitoring.dashboards"


@every_dashboard
def test_every_metric_in_a_dashboard_exists(file: Path) -> None:
    dashboard = load(file)
    asked = {name for promql in queries(dashboard) for name in names(promql)}
    for choice in dashboard["templating"]["list"]:
        [series] = re.findall(r"^label_values\((.*), \w+\)$", choice["definition"])
        asked |= names(series)
    assert asked
    assert not unknown(asked)


def test_every_metric_in_a_rule_exists() -> None:
    assert not unknown({name for promql in rules() for name in names(promql)})


def test_what_is_recorded_is_asked_for() -> None:
    asked = {name for promql in rules() for name in names(promql)}
    asked |= {name for file in FILES for promql in queries(load(file)) for name in names(promql)}
    # How much of what was answered failed is only asked of windows that a rule names.
    assert {name for name in recorded() - asked if ":rate" not in name} == set()


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    known = list(alerts())
    assert len({alert["alert"] for alert in known}) == len(known)
    for alert in known:
        assert alert["labels"]["severity"] in {"page", "ticket"}, alert["alert"]
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}, alert["alert"]
        assert alert["annotations"]["runbook_url"] == f"docs/alerts.md#{alert['alert'].lower()}"


def test_every_alert_has_an_entry_and_every_entry_an_alert() -> None:
    entries = re.findall(r"^### (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert sorted(entries) == sorted(alert["alert"] for alert in alerts())


def test_the_severity_in_the_docs_is_the_rules() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text()
    for alert in alerts():
        said = re.search(rf"^### {alert['alert']}\n+\*\*(\w+)\*\*", text, re.MULTILINE)
        assert said is not None, alert["alert"]
        assert said[1] == alert["labels"]["severity"], alert["alert"]


def test_every_alert_is_shown_to_fire_and_to_end_by_promtool() -> None:
    shown: dict[str, set[bool]] = {}
    for file in (ROOT / "tests" / "monitoring" / "alerts").glob("*.test.yml"):
        for group in yaml.safe_load(file.read_text())["tests"]:
            for test in group["promql_expr_test"]:
                [name] = re.findall(r'alertname="(\w+)"', test["expr"])
                shown.setdefault(name, set()).add(bool(test["exp_samples"]))
    assert shown == {alert["alert"]: {True, False} for alert in alerts()}


@pytest.mark.parametrize("name", ["roles", "settlement", "servers", "host"])
def test_alerts_fire_and_end_as_they_should(name: str) -> None:
    """`make check` has promtool play all of them; those of objectives over hours take it a while."""
    promtool("test", "rules", ROOT / "tests" / "monitoring" / "alerts" / f"{name}.test.yml")


@every_dashboard
def test_every_query_is_promql(file: Path, tmp_path: Path) -> None:
    # promtool parses the rules of a file, and a rule is a query with a name.
    written = [re.sub(r"\$__(rate_interval|range)", "1m", promql) for promql in queries(load(file))]
    numbered = [{"record": f"query_{number}", "expr": promql} for number, promql in enumerate(written)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": numbered}]}))
    promtool("check", "rules", tmp_path / "rules.yml")


@every_dashboard
def test_every_panel_says_what_it_answers_and_in_what_unit(file: Path) -> None:
    for panel in drawn(load(file)):
        assert "?" in panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@every_dashboard
def test_nothing_known_is_never_green(file: Path) -> None:
    for panel in drawn(load(file)):
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        assert not steps or steps[0]["color"] != "green", panel["title"]


@every_dashboard
def test_every_panel_has_a_place_of_its_own(file: Path) -> None:
    found = load(file)["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in found):
        assert place["x"] + place["w"] <= panels.COLUMNS
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells


@every_dashboard
def test_every_line_is_named_by_a_label_that_its_query_keeps(file: Path) -> None:
    for panel in drawn(load(file)):
        for target in panel["targets"]:
            kept = {name for names in re.findall(GROUPINGS, target["expr"]) for name in names.split(", ")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


@every_dashboard
def test_every_variable_in_use_is_defined(file: Path) -> None:
    dashboard = load(file)
    used = set(re.findall(r"\$([a-z]\w*)", json.dumps(dashboard)))
    used |= {panel["repeat"] for panel in drawn(dashboard) if "repeat" in panel}
    assert used == {choice["name"] for choice in dashboard["templating"]["list"]}


@every_dashboard
def test_every_query_goes_to_the_provisioned_datasource(file: Path) -> None:
    [datasource] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    dashboard = load(file)
    asked = [target["datasource"] for panel in drawn(dashboard) for target in panel["targets"]]
    asked += [choice["datasource"] for choice in dashboard["templating"]["list"]]
    assert all(one == {"type": datasource["type"], "uid": datasource["uid"]} for one in asked)


def test_grafana_knows_how_often_prometheus_asks() -> None:
    [datasource] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    configured = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert datasource["jsonData"]["timeInterval"] == configured["global"]["scrape_interval"]


def test_prometheus_takes_its_configuration() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


def asked(panel: str, **variables: str) -> dict[str, str]:
    """The queries of a panel of a live sale by their lines' names, as Grafana would fill them in."""
    [found] = [one for one in drawn(dashboards.sale_live()) if one["title"] == panel]
    return {
        target["legendFormat"]: re.sub(r"\$(\w+)", lambda name: variables[name[1]], target["expr"])
        for target in found["targets"]
    }


def answers(directory: Path, series: dict[str, str], expected: dict[tuple[str, str], list[Any]]) -> None:
    """Hold what Prometheus answers, by query and time, against what it is expected to."""
    tests = [
        {"expr": promql, "eval_time": at, "exp_samples": samples}
        for (promql, at), samples in expected.items()
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "5s", "input_series": given, "promql_expr_test": tests}
    (directory / "asked.test.yml").write_text(yaml.safe_dump({"tests": [test]}))
    promtool("test", "rules", directory / "asked.test.yml")


def test_a_funnel_narrows_also_where_a_waitlist_is_served(tmp_path: Path) -> None:
    steps = asked("Funnel", campaign="one", __range="5m")
    held = 'doorbuster_reservations_total{campaign="one", outcome="held"}'
    booked = 'doorbuster_settled_events_total{campaign="one", type="%s"}'
    series = {held: "0+12x50", booked % "reserved": "0+12x50", booked % "offered": "0+30x50"}
    more = f"({steps['settle']}) > ({steps['reserve']})"
    some = f"({steps['settle']}) > bool 0"
    answers(tmp_path, series, {(more, "4m"): [], (some, "4m"): [{"value": 1}]})


def test_what_was_sold_out_before_what_is_shown_is_not_told_to_have_gone_at_its_edge(tmp_path: Path) -> None:
    [promql] = asked("Time to sold out", campaign="one", __range="5m").values()
    series = {
        'doorbuster_units{campaign="one", sku="phone", state="available"}': "90-10x9 0x300",
        'doorbuster_campaign_opens_timestamp_seconds{campaign="one"}': "5x300",
    }
    sold_out = {"labels": '{campaign="one", sku="phone"}', "value": 40}
    answers(tmp_path, series, {(promql, "2m"): [sold_out], (promql, "20m"): []})
