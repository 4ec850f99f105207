"""The metrics as docs/metrics.md lists them, and as the code defines them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

import doorbuster.vitals
import gateway.metrics
import gateway.operators
import settlement.metrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
_ROW = re.compile(r"\| `(doorbuster_\w+)` \| (\w+) \|([\w, ]*)\| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
_MODULES = (doorbuster.vitals, gateway.metrics, settlement.metrics)


class Row(NamedTuple):
    """A line of the table."""

    type: str
    labels: frozenset[str]
    role: str
    question: str
    series: str


def documented() -> dict[str, Row]:
    """By name."""
    rows = _ROW.findall(PAGE.read_text())
    assert len({row[0] for row in rows}) == len(rows)
    return {
        name: Row(kind, frozenset(filter(None, labels.strip().split(", "))), role.strip(), question, series)
        for name, kind, labels, role, question, series in rows
    }


def questions() -> list[str]:
    """The PromQL of the page."""
    return re.findall(r"^```promql\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def metrics() -> Iterator[tuple[str, Counter | Gauge | Histogram]]:
    """What the modules define, by the name in which it is told."""
    for module in _MODULES:
        for metric in vars(module).values():
            if isinstance(metric, Counter | Gauge | Histogram):
                (family,) = metric.describe()
                yield family.name + ("_total" if family.type == "counter" else ""), metric


def gauges_at_scrape() -> dict[str, str]:
    """Name and help of what the gateway looks up for each scrape."""
    tree = ast.parse(Path(gateway.operators.__file__).read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "gauge"
    ]
    return {ast.literal_eval(call.args[0]): ast.literal_eval(call.args[1]) for call in calls}
