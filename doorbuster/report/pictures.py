"""The report's pictures: SVG to stand in its page, drawn to be read on a phone.

What colours are in light, in dark and in print, the page says: see `_THEMED`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from doorbuster.report.shown import Json, name_of
from doorbuster.svg import STYLE, inline

_INCHES = 4.0, 2.6
_FONT = 8.5
_INK, _LINE, _FIRST, _SECOND, _FAINT = "#1b1f24", "#d0d5db", "#2f6fde", "#d9822b", "#a3b1c2"
_THEMED = {_INK: "var(--ink)", _LINE: "var(--line)", _FIRST: "var(--first)", _SECOND: "var(--second)"}
_THEMED |= {_FAINT: "var(--faint)"}
_SERIES = [_FIRST, _SECOND, "#2a9d6f", "#a24bb5", "#c0392b", "#6b7785"]
_STYLE = STYLE | {
    "font.size": _FONT,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _LINE,
    "legend.frameon": False,
    "legend.fontsize": _FONT,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.2,
}
_BARS_MAX = 60
_AROUND_MINUTES = 5
_TIMES = (("seconds", 1), ("minutes", 60), ("hours", 3600), ("days", 86_400), ("years", 31_557_600))
_TIMES_MAX = 300
"""Then the next unit reads better."""
_NAME_CHARS_MAX = 20
"""Of a name in a picture. The tables have all of it."""
_OFFERS_MAX = 6
_OFFER_BARS_MAX = 12


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture; `text` says what it shows to who does not see it."""

    name: str
    title: str
    text: str
    svg: Markup


def pictures(report: Json) -> list[Picture]:
    """All there is to draw."""
    with matplotlib.rc_context(_STYLE):
        return list(_drawn(report))


def _drawn(report: Json) -> Iterator[Picture]:
    if report["minutes"]:
        yield _requests(report["minutes"])
    if report["levels"]:
        yield _levels(report["levels"], _busy_minutes(report["minutes"]))
    yield _bars(
        "funnel",
        "From visitor to order",
        [(step["step"], step["people"]) for step in report["funnel"] if step["people"] is not None],
        "people",
    )
    if report["offers"]:
        yield _offers(report["offers"])
    if report["presale"] is not None:
        yield _presale(report)
    if report["compared"] is not None:
        yield _beside(report)


def _requests(minutes: Sequence[Json]) -> Picture:
    """Reservations and refusals by minute; by several minutes, where there are many. A campaign is made, and
    looked at, weeks before."""
    if busy := _busy_minutes(minutes):
        minutes = [one for one in minutes if one["from_opening"] in busy]
    span = minutes[-1]["from_opening"] - minutes[0]["from_opening"] + 1
    wide = -(-span // _BARS_MAX)
    reserved, refused = Counter[int](), Counter[int]()
    for one in minutes:
        at = one["from_opening"] // wide * wide
        reserved[at] += one["reserved"]
        refused[at] += one["refused"] or 0
    figure, axes = _axes()
    places = range(min(reserved), max(reserved) + 1, wide)
    low = [reserved[at] for at in places]
    axes.bar(places, low, wide * 0.9, align="edge", color=_FIRST, label="reserved")
    known = any(one["refused"] is not None for one in minutes)
    if known:
        high = [refused[at] for at in places]
        axes.bar(places, high, wide * 0.9, low, align="edge", color=_FAINT, label="refused")
        _legend(axes)
    axes.set_xlabel("minutes from the opening")
    _count_axis(axes)
    by = "minute" if wide == 1 else f"{wide} minutes"
    text = f"{sum(low):,} reservations" + (f" and {sum(refused.values()):,} refusals" if known else "")
    return _picture(figure, "requests", f"Reservations{' and refusals' if known else ''} by {by}", text)


def _busy_minutes(minutes: Sequence[Json]) -> range:
    """From the opening, those in which something was reserved, and a little before and after."""
    sold = [one["from_opening"] for one in minutes if one["reserved"]]
    return range(sold[0] - _AROUND_MINUTES, sold[-1] + _AROUND_MINUTES + 1) if sold else range(0)


def _levels(levels: Mapping[str, Sequence[Json]], busy: range) -> Picture:
    """What was left of each offer, as a share of what there was, over time; not of the weeks afterwards, in
    which refunds come and forfeits."""
    chosen = dict(list(levels.items())[:_OFFERS_MAX])
    last_s = max(1.0, *(points[-1]["after_s"] for points in chosen.values()))
    shown_s = busy.stop * 60 if 0 < busy.stop * 60 < last_s / 2 else last_s
    unit, size = next((one for one in _TIMES if shown_s / one[1] <= _TIMES_MAX), _TIMES[-1])
    figure, axes = _axes()
    told = []
    for (sku, points), colour in zip(chosen.items(), _SERIES, strict=False):
        before = [one for one in points if one["after_s"] <= 0]
        after = [one for one in points if one["after_s"] > 0]
        begins = before[-1] if before else after[0] | {"taken": 0}
        left = [_left(one) for one in (begins, *after)]
        times = [0.0, *(one["after_s"] / size for one in after), last_s / size]
        axes.step(times, [*left, left[-1]], where="post", color=colour, label=_short(sku), linewidth=1.6)
        told.append(f"{sku}: {left[-1]:.0f} % left")
    axes.set_ylim(0, 102)
    axes.set_xlim(0, shown_s / size)
    axes.set_xlabel(f"{unit} from the opening")
    _count_axis(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:.0f} %"))
    _legend(axes)
    return _picture(figure, "levels", "What was left, over time", f"In the end {', '.join(told)}.")


def _left(level: Json) -> float:
    """Of stock, in per cent."""
    return 100 * (level["stock"] - level["taken"]) / level["stock"] if level["stock"] else 0.0


def _offers(offers: Sequence[Json]) -> Picture:
    """Sold of what there was, by offer."""
    chosen = sorted(offers, key=lambda one: -one["gmv"])[:_OFFER_BARS_MAX]
    rows = len(chosen)
    figure, axes = _axes(height=0.9 + 0.32 * rows, grid="x")
    places = range(rows)
    axes.barh(places, [one["stock"] or 0 for one in chosen], 0.7, color=_FAINT, label="stock")
    axes.barh(places, [one["units_sold"] for one in chosen], 0.7, color=_FIRST, label="sold")
    axes.set_yticks(places, [_short(one["sku"]) for one in chosen])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.xaxis.set_major_locator(_whole(4))
    _legend(axes)
    text = "; ".join(f"{one['sku']}: {one['units_sold']:,} of {one['stock'] or 0:,}" for one in chosen)
    return _picture(figure, "offers", "Sold of what there was", text)


def _presale(report: Json) -> Picture:
    found = report["presale"]
    rest = found["deposits"] - found["completed"] - found["forfeits"]
    rows = [
        ("deposits paid", found["deposits"]),
        ("balances paid", found["completed"]),
        ("forfeited", found["forfeits"]),
        ("given up or due", rest),
    ]
    return _bars("presale", "What became of deposits", rows, "reservations")


def _beside(report: Json) -> Picture:
    """Reservations from each opening on, added up: this campaign and the earlier one."""
    compared = report["compared"]
    figure, axes = _axes()
    for minutes, campaign, colour in (
        (compared["minutes"], compared["campaign"], _FAINT),
        (report["minutes"], report["campaign"], _FIRST),
    ):
        times, sums, so_far = [0], [0], 0
        for one in (one for one in minutes if one["reserved"]):
            so_far += one["reserved"]
            times.append(max(0, one["from_opening"]) + 1)
            sums.append(so_far)
        # A step at the end of each minute: between two that are told of, nothing was reserved.
        axes.step(times, sums, where="post", color=colour, label=_short(campaign["id"]), linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes from the opening")
    _count_axis(axes)
    _legend(axes)
    now, before = (sum(one["reserved"] for one in found["minutes"]) for found in (report, compared))
    text = f"{now:,} reservations, {before:,} in {name_of(compared['campaign'])}"
    return _picture(figure, "beside", "Reservations, beside the earlier campaign", text)


def _bars(name: str, title: str, rows: Sequence[tuple[str, int]], what: str) -> Picture:
    """One bar below the other, with its number at its end."""
    figure, axes = _axes(height=0.5 + 0.36 * len(rows), grid="")
    places = range(len(rows))
    axes.barh(places, [count for _, count in rows], 0.68, color=_FIRST)
    most = max((count for _, count in rows), default=0) or 1
    for place, (_, count) in enumerate(rows):
        axes.text(count + most * 0.02, place, f"{count:,}", va="center")
    axes.set_yticks(places, [label for label, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.2)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    text = "; ".join(f"{label}: {count:,}" for label, count in rows)
    return _picture(figure, name, title, f"{what}: {text}")


def _axes(height: float = _INCHES[1], grid: str = "y") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_INCHES[0], height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.tick_params(length=0)
    if grid:
        axes.grid(axis=grid, linewidth=0.6)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
    return figure, axes


def _short(name: str) -> str:
    """The name of an offer or campaign, with room for a picture beside it: they differ at their ends, most
    often."""
    half = _NAME_CHARS_MAX // 2
    return name if len(name) <= _NAME_CHARS_MAX else f"{name[: half - 1]}…{name[-half:]}"


def _legend(axes: Axes) -> None:
    """Above what is drawn, where it covers nothing."""
    labels = axes.get_legend_handles_labels()[1]
    columns = min(len(labels), 3 if max(map(len, labels)) <= _NAME_CHARS_MAX // 2 else 2)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, borderaxespad=0.2)


def _count_axis(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.yaxis.set_major_locator(_whole(5))
    axes.xaxis.set_major_locator(_whole(6))


def _whole(steps_max: int) -> MaxNLocator:
    """Marks at whole numbers, and be it at one."""
    return MaxNLocator(steps_max, integer=True, min_n_ticks=1)


def _picture(figure: Figure, name: str, title: str, text: str) -> Picture:
    labels = f'role="img" aria-label="{escape(title)}: {escape(text)}"'
    svg = inline(figure, name, labels, f"<title>{escape(title)}</title><desc>{escape(text)}</desc>")
    for colour, themed in _THEMED.items():
        svg = svg.replace(colour, themed)
    return Picture(name, title, text, Markup(svg))  # noqa: S704
