"""The pictures of a load test's report, as SVG that stands in the page itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loadtests.timeline import UNEXPECTED, Row, by_second, of_request, percentile_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, HEIGHT_IN = 8.0, 2.9
INK, FAINT = "#1f2933", "#d9dee4"
COLOURS = (
    *("#2f6fde", "#e08a1e", "#3a9d5d", "#8a5cd1", "#4aa3b5"),
    *("#b48a3c", "#9aa5b1", "#d37fb0", "#5b6770"),
)
BAD = "#c2302c"
PERCENTILES = ((50, COLOURS[0]), (95, COLOURS[1]), (99, BAD))
OUTCOMES_MAX = 8
"""The others are one colour together."""
STAGE_CHARS_MAX = 14


class Pictures:
    """Draws what happened in a run: x is seconds from its beginning."""

    def __init__(
        self, began_s: float, seconds: float, width_s: int, stages: Sequence[tuple[str, int]]
    ) -> None:
        """`stages`: name and seconds of each."""
        self._began_s = began_s
        self._seconds = seconds
        self._width_s = width_s
        self._stages = stages

    def throughput(self, rows: Sequence[Row]) -> str:
        """Requests a second, by what was asked for."""

        def draw(axes: Axes) -> None:
            counts = by_second(rows, lambda row: row[1])
            totals = {name: counts[name].total() for name in counts}
            names = sorted(totals, key=lambda name: -totals[name])[:OUTCOMES_MAX]
            every: Mapping[int, int] = by_second(rows, lambda row: "all").get("all", {})
            self._line(axes, every, "all", INK)
            for name, colour in zip(names, COLOURS, strict=False):
                self._line(axes, counts[name], name, colour)
            axes.set_ylabel("requests/s")

        return self._picture("throughput", draw)

    def latency(self, rows: Sequence[Row], request: str) -> str:
        """Percentiles of what one kind of request took, in ms."""

        def draw(axes: Axes) -> None:
            by_at: dict[int, list[Row]] = {}
            for row in of_request(rows, request):
                by_at.setdefault(row[0], []).append(row)
            for percent, colour in PERCENTILES:
                points = {at: percentile_ms(found, percent) or 0.0 for at, found in by_at.items()}
                at = sorted(points)
                axes.plot(
                    [self._x(one) for one in at],
                    [points[one] for one in at],
                    color=colour,
                    label=f"p{percent}",
                    marker="." if len(at) < 3 else None,
                )
            axes.set_ylabel("ms")

        return self._picture(f"latency-{request}", draw)

    def stock(self, stock: Mapping[str, Sequence[tuple[float, int]]]) -> str:
        """Units left of each offer."""

        def draw(axes: Axes) -> None:
            for (sku, seen), colour in zip(stock.items(), COLOURS, strict=False):
                x = [at - self._began_s for at, _ in seen]
                axes.step(x, [left for _, left in seen], where="post", color=colour, label=sku)
            axes.set_ylabel("units left")

        return self._picture("stock", draw)

    def outcomes(self, rows: Sequence[Row]) -> str:
        """What came of reserving, stacked."""

        def draw(axes: Axes) -> None:
            counts = by_second(rows, lambda row: row[2])
            names = sorted(counts, key=lambda name: -counts[name].total())
            shown, others = names[:OUTCOMES_MAX], names[OUTCOMES_MAX:]
            seconds = range(int(self._began_s), int(self._began_s + self._seconds) + 1)
            cells = sorted({second // self._width_s * self._width_s for second in seconds})
            series = {name: [counts[name][at] / self._width_s for at in cells] for name in shown}
            if others:
                series["others"] = [sum(counts[name][at] for name in others) / self._width_s for at in cells]
            colours = [BAD if name == UNEXPECTED else COLOURS[n] for n, name in enumerate(series)]
            if series:
                x = [self._x(at) for at in cells]
                axes.stackplot(x, *series.values(), labels=list(series), colors=colours, linewidth=0)
            axes.set_ylabel("answers/s")

        return self._picture("outcomes", draw)

    def _x(self, at: float) -> float:
        return at - self._began_s + self._width_s / 2

    def _line(self, axes: Axes, counts: Mapping[int, int], name: str, colour: str) -> None:
        if counts:
            cells = range(min(counts), max(counts) + 1, self._width_s)
            axes.plot(
                [self._x(at) for at in cells],
                [counts.get(at, 0) / self._width_s for at in cells],
                color=colour,
                label=name,
            )

    def _picture(self, name: str, draw: Any) -> str:
        # Here, so that who wants no report does not wait for it.
        import matplotlib
        from matplotlib.figure import Figure

        from doorbuster.svg import STYLE, inline

        with matplotlib.rc_context(
            STYLE
            | {
                "font.size": 9,
                "text.color": INK,
                "axes.labelcolor": INK,
                "xtick.color": INK,
                "ytick.color": INK,
                "lines.linewidth": 1.4,
            }
        ):
            figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
            figure.subplots_adjust(left=0.08, right=0.78, top=0.92, bottom=0.16)
            axes = figure.subplots()
            draw(axes)
            axes.set_xlim(0, max(1.0, self._seconds))
            axes.set_ylim(bottom=0)
            axes.set_xlabel("seconds")
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
            self._mark_stages(axes)
            handles, labels = axes.get_legend_handles_labels()
            if handles:
                axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
            return inline(figure, name)

    def _mark_stages(self, axes: Axes) -> None:
        at = 0
        for name, seconds in self._stages:
            if seconds and at < self._seconds:
                axes.axvline(at, color=FAINT, linewidth=0.8, zorder=0)
                axes.annotate(
                    name[:STAGE_CHARS_MAX],
                    (at, 1.0),
                    xycoords=("data", "axes fraction"),
                    xytext=(2, 2),
                    textcoords="offset points",
                    fontsize=7,
                )
            at += seconds
