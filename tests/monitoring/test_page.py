"""docs/alerts.md says how each alert was shown to fire and to end."""

from __future__ import annotations

import re

from tests.monitoring.scaled import PROMETHEUS
from tests.monitoring.test_real_prometheus import AFTERWARDS, ROUNDS, alerts


def test_the_page_says_how_each_alert_is_shown() -> None:
    shown: dict[str, set[str]] = {alert: set() for alert in alerts()}
    for broken in ROUNDS:
        for fault, expected in broken.items():
            for alert in (*expected, *AFTERWARDS.get(fault, ())):
                shown[alert].add(fault.__name__)
    page = (PROMETHEUS.parents[1] / "docs" / "alerts.md").read_text()
    said = dict(re.findall(r"^\| (\w+) \| (.+) \|$", page, re.MULTILINE))
    for alert, faults_of_it in shown.items():
        assert set(re.findall(r"`(\w+)`", said[alert])) == faults_of_it, alert
        assert faults_of_it or said[alert] == "promtool", alert
