"""Pictures of the dashboards, from a running Prometheus: what each panel's queries answered over a while.

python -m monitoring.pictures --campaign midnight-drop --minutes 10 --to docs/dashboards
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from PIL import Image

from monitoring.dashboards import DASHBOARDS
from monitoring.panels import BYTES, BYTES_PER_S, DURATION, SECONDS, SHARE, Json

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, PercentFormatter

COLUMNS = 3
STEPS = 240
"""Points of each line."""
LINES_MAX = 8
"""In a legend; the rest is drawn without a name."""
COLOURS = 96
_UNITS = {SECONDS: "s", DURATION: "s", BYTES: "B", BYTES_PER_S: "B/s"}


class Window(NamedTuple):
    """What is shown, in Unix time."""

    start: float
    end: float

    @property
    def step(self) -> float:
        return max(1.0, (self.end - self.start) / STEPS)


class Line(NamedTuple):
    name: str
    times: list[float]
    values: list[float]


class Asked:
    """A Prometheus, and what stands for the variables of dashboards."""

    def __init__(self, url: str, window: Window, variables: Mapping[str, str]) -> None:
        self._url = url
        self.window = window
        self._variables = variables

    def lines(self, target: Json) -> Iterator[Line]:
        """What a panel's query answered. Raises OSError."""
        promql = re.sub(r"\$(\w+)", lambda found: self._variables[found[1]], target["expr"])
        start, end = self.window
        asked = {"query": promql, "start": start, "end": end, "step": self.window.step}
        address = f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310  (the operator's own)
            found = json.load(answer)["data"]["result"]
        for one in found:
            times, values = _with_gaps(one["values"], self.window.step)
            name = _named(target["legendFormat"], one["metric"])
            if not all(map(math.isnan, values)):
                yield Line(name, times, values)


def _with_gaps(found: list[tuple[float, str]], step: float) -> tuple[list[float], list[float]]:
    """Points, with one that is no number wherever nothing was known for a while."""
    times: list[float] = []
    values: list[float] = []
    for at, value in found:
        if times and at - times[-1] > 2 * step:
            times.append(at - step)
            values.append(math.nan)
        times.append(at)
        values.append(float(value))
    return times, values


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), legend)


def draw(dashboard: Json, asked: Asked) -> bytes:
    """A dashboard as PNG: small multiples, in the order of its panels."""
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    rows = math.ceil(len(panels) / COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(15, 2.6 * rows + 0.6), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for panel, axes in zip(panels, grid.flat, strict=False):
        _draw_panel(panel, axes, asked)
    start, end = (datetime.fromtimestamp(at, UTC) for at in asked.window)
    title = f"{dashboard['title']}, {start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC"
    figure.suptitle(title, fontsize=13, y=1 - 0.15 / (2.6 * rows + 0.6))
    height = 2.6 * rows + 0.6
    figure.subplots_adjust(0.035, 0.25 / height, 0.99, 1 - 0.7 / height, wspace=0.13, hspace=0.38)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=72)
    plt.close(figure)
    return _small(drawn)


def _draw_panel(panel: Json, axes: Axes, asked: Asked) -> None:
    title = re.sub(r"\$(\w+)", lambda found: asked._variables[found[1]], panel["title"])
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    start, end = asked.window
    axes.set_xlim(0, end - start)
    lines = [line for target in panel["targets"] for line in asked.lines(target)]
    lines.sort(key=lambda line: -max(value for value in line.values if not math.isnan(value)))
    stacked = panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal"
    if not lines:
        axes.text(
            0.5, 0.5, panel["fieldConfig"]["defaults"].get("noValue", "nothing"), transform=axes.transAxes
        )
    elif stacked:
        _stack(lines, axes, asked.window)
    else:
        for number, line in enumerate(lines):
            label = line.name if number < LINES_MAX else None
            times = [at - start for at in line.times]
            axes.plot(times, line.values, linewidth=1.2, label=label, clip_on=False)  # 0 is a line too
        if not any(value > 0 for line in lines for value in line.values):
            axes.set_ylim(top=1)  # nothing but 0 is a line at the bottom, and no empty picture
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.yaxis.set_major_formatter(
        PercentFormatter(1.0) if unit == SHARE else EngFormatter(_UNITS.get(unit, ""))
    )
    if unit not in (DURATION,):
        axes.set_ylim(bottom=0)
    if any(name for name in axes.get_legend_handles_labels()[1]):
        axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def _stack(lines: list[Line], axes: Axes, window: Window) -> None:
    times = sorted({at for line in lines for at in line.times})
    piles = []
    for line in lines:
        known = dict(zip(line.times, line.values, strict=True))
        piles.append([0.0 if math.isnan(known.get(at, 0.0)) else known.get(at, 0.0) for at in times])
    shown = [number < LINES_MAX and any(pile) for number, pile in enumerate(piles)]
    named = [line.name if named else "_" for line, named in zip(lines, shown, strict=True)]
    axes.stackplot([at - window.start for at in times], piles, labels=named, alpha=0.7)


def _small(drawn: io.BytesIO) -> bytes:
    """The same in fewer colours: a picture for the documentation, not for print."""
    found = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(found, "PNG", optimize=True)
    return found.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9090", help="of Prometheus")
    parser.add_argument("--campaign", required=True, help="that the dashboards show")
    parser.add_argument("--sku", default=".+", help="of the offer that they show")
    parser.add_argument("--minutes", type=float, default=15, help="how far back")
    parser.add_argument("--to", type=Path, default=Path("docs/dashboards"))
    given = parser.parse_args()
    end = time.time()
    write(given.url, Window(end - given.minutes * 60, end), given.campaign, given.sku, given.to)


def write(
    url: str, window: Window, campaign: str, sku: str, directory: Path, rate_interval: str = "20s"
) -> None:
    """A picture for each dashboard. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    variables: dict[str, Any] = {
        "sku": sku,
        "__rate_interval": rate_interval,
        "__range": f"{math.ceil(window.end - window.start)}s",
    }
    for name, make in DASHBOARDS.items():
        dashboard = make()
        several = any(choice["name"] == "campaign" and choice["multi"] for choice in _choices(dashboard))
        chosen = {**variables, "campaign": ".+" if several else campaign}
        picture = directory / Path(name).with_suffix(".png")
        picture.write_bytes(draw(dashboard, Asked(url, window, chosen)))


def _choices(dashboard: Json) -> list[Json]:
    found: list[Json] = dashboard["templating"]["list"]
    return found


if __name__ == "__main__":
    main()
