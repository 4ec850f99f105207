"""Figures and targets, to read in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

from loadtests.bench import peak
from loadtests.bench.figures import Figures
from loadtests.bench.subjects import ECHO, FASTIFY_IOREDIS, NGINX_LUA_REDIS, ONE_EVALSHA
from loadtests.bench.targets import Target

PEERS = {ECHO: "echo", ONE_EVALSHA: "redis-py", FASTIFY_IOREDIS: "Fastify", NGINX_LUA_REDIS: "nginx"}
COSTS = {
    peak.SERVER_CPU: ("server us", "{:.1f}"),
    peak.REDIS_CPU: ("Redis us", "{:.1f}"),
    peak.LOAD_CPU: ("load us", "{:.1f}"),
    peak.SERVER_BUSY: ("its core", "{:.0%}"),
    peak.REST_BUSY: ("other core", "{:.0%}"),
    peak.BUSY: ("turned away", "{:,.0f}"),
    peak.DISTURBED: ("lost", "{:.0%}"),
}
ABSENT = "–"


def tables(figures: Figures, targets: Iterable[Target]) -> Group:
    return Group(answers_table(figures), costs_table(figures), targets_table(figures, targets))


def answers_table(figures: Figures) -> Table:
    """Answers a second, and each to each peer's."""
    ratios = (f"/ {peer}" for peer in PEERS.values())
    table = _table("Answers a second: medians, and their ratios", [""], ["median", "least", "most", *ratios])
    for subject in figures.subjects(peak.PART):
        answers = figures.get(peak.PART, subject, peak.ANSWERS)
        if answers is not None:
            counts = (f"{count:,.0f}" for count in (answers.median, answers.least, answers.most))
            to = (figures.ratio(peak.PART, peak.ANSWERS, subject, peer) for peer in PEERS)
            table.add_row(subject, *counts, *map(ratio_text, to))
    return table


def costs_table(figures: Figures) -> Table:
    """What an answer costs, how busy the cores are, and what of them was lost to others."""
    table = _table(
        "What an answer costs, and how busy the cores are", [""], [name for name, _ in COSTS.values()]
    )
    for subject in figures.subjects(peak.PART):
        found = (figures.get(peak.PART, subject, name) for name in COSTS)
        forms = (form for _, form in COSTS.values())
        cells = (form.format(one.median) if one else ABSENT for one, form in zip(found, forms, strict=True))
        table.add_row(subject, *cells)
    return table


def targets_table(figures: Figures, targets: Iterable[Target]) -> Table:
    """Each target, what was measured, and whether that is enough."""
    table = _table("Targets: medians, or their ratios", [""], ["at least", "at most", "measured", ""])
    for target in targets:
        bounds = ("" if bound is None else ratio_text(bound) for bound in (target.least, target.most))
        measured, verdict = ratio_text(target.measured(figures)), verdict_text(target.met(figures))
        table.add_row(target.what, *bounds, measured, verdict)
    return table


def ratio_text(ratio: float | None) -> str:
    return ABSENT if ratio is None else f"{ratio:.2f}"


def verdict_text(met: bool | None) -> str:
    return {None: "not measured", True: "ok", False: "MISS"}[met]


def _table(title: str, names: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table
