"""The report of a load test: one HTML file with its pictures in it, no script, and nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.pictures import Pictures
from loadtests.stages import Stage
from loadtests.thresholds import RESERVE, Checked
from loadtests.timeline import Row, count, of_request, percentile_ms

TEMPLATE = Path(__file__).with_name("report.html.j2")
PICTURED_MAX = 3
"""Requests whose latency is drawn, the most frequent ones; of all the others there is a line in a table."""


@dataclass(frozen=True, slots=True)
class Run:
    """A load test that is over."""

    scenario: str
    about: str
    host: str
    campaign: str
    began_s: float
    """Since the epoch."""
    seconds: float
    width_s: int
    """Seconds that are counted together in `rows`."""
    rows: Sequence[Row]
    stock: Mapping[str, Sequence[tuple[float, int]]]
    stages: Sequence[Stage]
    options: Mapping[str, str]
    checked: Sequence[Checked]
    climbed: Sequence[str]
    outcomes: Sequence[tuple[str, str, int]]
    audit: Mapping[str, Any] | None
    verdict: str
    passed: bool


def write_report(run: Run, path: Path) -> Path:
    """Write it; where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html(run), "utf-8")
    return path


def html(run: Run) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        run=run,
        began=f"{datetime.fromtimestamp(run.began_s, UTC):%Y-%m-%d %H:%M:%S} UTC",
        pictures=_pictures(run),
        latencies=_latencies(run),
        outcomes=sorted(run.outcomes, key=lambda row: (row[0], -row[2])),
        requests=count(run.rows),
    )


def _pictures(run: Run) -> list[tuple[str, str]]:
    """A caption and an SVG each. They come from us, and are not escaped."""
    from markupsafe import Markup

    stages = [(stage.name, stage.seconds) for stage in run.stages]
    draw = Pictures(run.began_s, run.seconds, run.width_s, stages)
    found = [("Throughput over time, by request", draw.throughput(run.rows))]
    for request in _most_frequent(run)[:PICTURED_MAX]:
        caption = f"Latency over time as shoppers see it: {request}"
        found.append((caption, draw.latency(run.rows, request)))
    if run.stock:
        found.append(("Units left over time, as the campaign's page says", draw.stock(run.stock)))
    found.append(("What came of reserving, over time", draw.outcomes(of_request(run.rows, RESERVE))))
    return [(caption, Markup(svg)) for caption, svg in found]  # noqa: S704


def _most_frequent(run: Run) -> list[str]:
    """Requests: reserving first, then by how often they were made."""
    totals: dict[str, int] = {}
    for row in run.rows:
        totals[row[1]] = totals.get(row[1], 0) + row[4]
    return sorted(totals, key=lambda request: (request != RESERVE, -totals[request]))


def _latencies(run: Run) -> list[tuple[str, int, list[str]]]:
    """A request, how often it was made, and its p50, p95 and p99 in ms."""
    found = []
    for request in _most_frequent(run):
        rows = of_request(run.rows, request)
        found.append((request, count(rows), [f"{percentile_ms(rows, p) or 0:g}" for p in (50, 95, 99)]))
    return found
