"""What dashboards are made of.

A panel is a title, the question that it answers, a unit and its queries; the rest is the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "doorbuster-prometheus"}
SCHEMA_VERSION = 39
"""Grafana 11's. Later ones read it too; earlier ones would not read a later one."""
COLUMNS = 24
"""Of Grafana's grid: how wide a row of panels is."""

SECONDS, DURATION = "s", "dtdurations"
REQUESTS_PER_S, EVENTS_PER_S, OPERATIONS_PER_S = "reqps", "cps", "ops"
SHARE, COUNT, BYTES, BYTES_PER_S = "percentunit", "short", "bytes", "Bps"


@dataclass(frozen=True)
class Query:
    """PromQL, and what its lines are called."""

    promql: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A question, and the picture that answers it."""

    kind: str
    title: str
    question: str
    unit: str
    queries: Sequence[Query]
    width: int
    height: int
    options: Json
    defaults: Json
    """Of its fields, beside the unit."""
    overrides: Sequence[Json] = ()
    instant: bool = False
    """Asks for the present alone, so that nothing old is shown when nothing is known."""
    repeat: str | None = None
    """The variable for each of whose values there is one such panel."""

    def to_json(self, number: int, x: int, y: int) -> Json:
        found: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.question,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": DATASOURCE,
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            "fieldConfig": {
                "defaults": {"unit": self.unit, **self.defaults},
                "overrides": list(self.overrides),
            },
            "options": self.options,
        }
        if self.repeat is not None:
            found |= {"repeat": self.repeat, "repeatDirection": "h", "maxPerRow": COLUMNS // self.width}
        return found

    def _target(self, place: int, query: Query) -> Json:
        return {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.promql,
            "legendFormat": query.legend,
            "instant": self.instant,
            "range": not self.instant,
        }


@dataclass(frozen=True)
class Row:
    """Panels under a heading, left to right and then down."""

    title: str
    panels: Sequence[Panel]


def rate(metric: str, labels: str = "") -> str:
    """How fast a counter grows, in 1/s."""
    selector = f"{{{labels}}}" if labels else ""
    return f"rate({metric}{selector}[$__rate_interval])"


def quantile(q: float, histogram: str, by: Sequence[str] = (), labels: str = "") -> str:
    """A quantile of a histogram, for each combination of the labels `by`."""
    grouping = ", ".join(["le", *by])
    return f"histogram_quantile({q:g}, sum by ({grouping}) ({rate(f'{histogram}_bucket', labels)}))"


def quantiles(histogram: str, *percents: int, labels: str = "") -> tuple[Query, ...]:
    """A line for each of these percentiles of a histogram."""
    return tuple(
        Query(quantile(percent / 100, histogram, labels=labels), f"p{percent}") for percent in percents
    )


def mean(histogram: str, by: Sequence[str] = ()) -> str:
    """The mean of what a histogram has seen lately, for each combination of the labels `by`."""
    grouping = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouping} ({rate(f'{histogram}_sum')}) / sum{grouping} ({rate(f'{histogram}_count')})"


def lines(
    title: str,
    question: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    max_value: float | None = None,
    overrides: Sequence[Json] = (),
    repeat: str | None = None,
) -> Panel:
    """Something over time. Stacked where the sum means something."""
    defaults: Json = {
        "min": 0,
        # A name has the same colour in every panel.
        "color": {"mode": "palette-classic-by-name"},
        "custom": {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if stacked else 10,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        },
    }
    if max_value is not None:
        defaults["max"] = max_value
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(
        "timeseries",
        title,
        question,
        unit,
        queries,
        width,
        height,
        options,
        defaults,
        overrides,
        repeat=repeat,
    )


def on_the_right(name: str, unit: str) -> Json:
    """For `lines`: the one of that name has a unit of its own, and its axis on the right."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "unit", "value": unit}, {"id": "custom.axisPlacement", "value": "right"}],
    }


def number(
    title: str,
    question: str,
    unit: str,
    *queries: Query,
    width: int = 6,
    below_zero: str | None = None,
    unknown: str = "unknown",
) -> Panel:
    """A figure that is neither good nor bad. `below_zero` stands for what is less than nothing."""
    passed: Json = {"type": "range", "options": {"from": None, "to": 0, "result": {"text": below_zero}}}
    defaults: Json = {
        "noValue": unknown,
        "color": {"mode": "fixed", "fixedColor": "text"},
        "mappings": [passed] if below_zero else [],
    }
    options: Json = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "center",
        "textMode": "auto",
    }
    return Panel("stat", title, question, unit, queries, width, 5, options, defaults, instant=True)


def verdict(
    title: str,
    question: str,
    query: Query,
    *,
    zero: str,
    more: str,
    words: Sequence[str] = (),
    unit: str = COUNT,
    width: int = 8,
) -> Panel:
    """One number that is good or bad, to be seen from across the room.

    `zero` is the colour of 0 and `more` that of 1 and more; `words` stand for 0, 1, and so on.
    """
    # What is below every step is what is not known, and that is never good.
    steps = [
        {"color": "orange", "value": None},
        {"color": zero, "value": 0},
        {"color": more, "value": 1},
    ]
    named = {str(value): {"text": word} for value, word in enumerate(words)}
    defaults: Json = {
        "decimals": 0,
        "noValue": "unknown",
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [{"type": "value", "options": named}] if named else [],
    }
    options: Json = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "center",
        "textMode": "value",
    }
    return Panel("stat", title, question, unit, [query], width, 6, options, defaults, instant=True)


def variable(name: str, label: str, promql: str, *, all_of_them: bool = False) -> Json:
    """A choice at the top of the dashboard, whose values Prometheus knows."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": promql,
        "query": {"qryType": 1, "query": promql, "refId": f"variable-{name}"},
        "refresh": 2,  # whenever the time range changes: campaigns come and go
        "sort": 1,
        "multi": all_of_them,
        "includeAll": all_of_them,
        "current": {"text": ["All"], "value": ["$__all"]} if all_of_them else {},
        "options": [],
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
    }


def dashboard(uid: str, title: str, purpose: str, variables: Sequence[Json], rows: Sequence[Row]) -> Json:
    """A whole dashboard, as Grafana reads it."""
    return {
        "uid": uid,
        "title": title,
        "description": purpose,
        "tags": ["doorbuster"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # a moment pointed at in one panel is shown in all
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": list(variables)},
        "panels": _placed(rows),
    }


def _placed(rows: Sequence[Row]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        heading = {"type": "row", "title": row.title, "gridPos": place, "collapsed": False, "panels": []}
        placed.append({"id": len(placed) + 1, **heading})
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            placed.append(panel.to_json(len(placed) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed
