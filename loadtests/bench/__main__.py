"""Compares Doorbuster's gateway with its peers. `python -m loadtests.bench --help` says what can be asked."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import NoReturn

import orjson
from rich.console import Console

from loadtests.bench import ablation, durability, machine, openload, peak, scale, settle, wrk
from loadtests.bench.cpu import find_cores
from loadtests.bench.figures import Figures
from loadtests.bench.options import Options
from loadtests.bench.picture import picture
from loadtests.bench.servers import ServerFailed, book_server, directory
from loadtests.bench.subjects import SUBJECTS, Bench, Keys, Subject
from loadtests.bench.table import tables
from loadtests.bench.targets import TARGETS
from loadtests.bench.users import write_users

TABLE_CHARS = 110
PARTS = {
    "peak": peak.measure,
    "ablation": ablation.measure,
    "open": openload.measure,
    "settle": settle.measure,
    "scale": scale.measure,
    "durability": durability.measure,
}
"""Each measures the subjects and yields its figures."""


def main() -> None:
    # As after Ctrl-C: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, _leave)
    options = Options.parse()
    # Into a file or a pipe, as wide as the table is.
    console = Console(width=None if sys.stdout.isatty() else TABLE_CHARS)
    if not wrk.installed():
        sys.exit("bench: wrk is not installed; scripts/install-bench does that")
    try:
        figures = run(options, console)
    except (peak.Unverified, ServerFailed, wrk.LoadFailed) as error:
        sys.exit(f"bench: {error}")
    console.print(tables(figures, TARGETS))
    disturbed = [
        one for one in figures.all() if one.name == peak.DISTURBED and one.median > peak.DISTURBED_MAX
    ]
    if disturbed:
        console.print("Other processes had much of the cores: do not believe these figures; measure again.")
    write(figures, options)
    console.print(f"{options.figures}, {options.picture}")


def run(options: Options, console: Console) -> Figures:
    """Measure all parts. Raises Unverified, ServerFailed, LoadFailed."""
    unknown = set(options.parts) - PARTS.keys()
    if unknown:
        sys.exit(f"bench: no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    subjects = chosen(options)
    left_out = [subject.name for subject in subjects if not subject.installed()]
    if left_out:
        console.print(f"Not installed, and left out: {'; '.join(left_out)}. See scripts/install-bench.")
    there = [subject for subject in subjects if subject.installed()]
    cores, keys = find_cores(), Keys()
    with directory() as home, book_server(home, cores.rest) as book_dsn:
        users = home / "users"
        write_users(users, keys.jwt_secret)
        bench = Bench(options, cores, keys, users, book_dsn)
        parts = [part for name, part in PARTS.items() if not options.parts or name in options.parts]
        return Figures(figure for part in parts for figure in part(bench, there, console.print))


def chosen(options: Options) -> list[Subject]:
    unknown = set(options.subjects) - {subject.name for subject in SUBJECTS}
    if unknown:
        sys.exit(f"bench: no such subject: {', '.join(sorted(unknown))}")
    return [subject for subject in SUBJECTS if not options.subjects or subject.name in options.subjects]


def write(figures: Figures, options: Options) -> None:
    """All rounds, as JSON; the picture."""
    found = {
        "machine": machine.describe(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
        "figures": figures.all(),
        "targets": [
            {"target": target, "measured": target.measured(figures), "met": target.met(figures)}
            for target in TARGETS
        ],
    }
    _write(options.figures, orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    _write(options.picture, picture(figures).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
