"""The part that asks how long shoppers wait when they come as they please, and not when they were answered.

Everything is measured on one gateway that runs throughout a round: its peak, then a part of that as an
open load, then more than it can take. What a shopper waits is counted from the moment they came.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.admission import CROWD
from loadtests.bench.cpu import pinned
from loadtests.bench.figures import Figure
from loadtests.bench.peak import subject_running
from loadtests.bench.plan import SKU
from loadtests.bench.servers import ROOT, Server, directory
from loadtests.bench.subjects import DOORBUSTER, Bench, Subject
from loadtests.bench.wrk import RESERVE_PATH, put_load

PART = "open load"
AT_70, OVERLOAD, CROWDED = "at 70 % of peak", "5 x a slow store", "all that can be sent"
CONNECTIONS_MAX = 2_048
_STOPPED_SECONDS, _RUNNING_SECONDS = 0.018, 0.002
"""Of the store that the overload is too much for. So what limits is not the gateway, whose core has to
refuse four requests for each that it lets in."""
SENT_MAX = 30_000
"""A second: more than a gateway's core can take, and as much as the generator can send beside a store."""


def measure(bench: Bench, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Figure]:
    """Doorbuster alone. Raises ServerFailed, LoadFailed."""
    subject = next((one for one in subjects if one.name == DOORBUSTER), None)
    if subject is None:
        return []
    found: dict[tuple[str, str, str], list[float]] = {}
    for number in range(bench.options.rounds):
        for (load, name, unit), value in _round(bench, subject).items():
            found.setdefault((load, name, unit), []).append(value)
            say(f"round {number + 1}  {load:<22}{name:<34}{value:>10,.1f} {unit}")
    return [Figure(PART, *names, tuple(values)) for names, values in found.items()]


def _round(bench: Bench, subject: Subject) -> dict[tuple[str, str, str], float]:
    figures: dict[tuple[str, str, str], float] = {}
    with subject_running(bench, subject) as (server, store), directory() as home:
        tokens = _tokens(bench, home)
        _peak(bench, server, seconds=2)  # warm
        peak = _peak(bench, server, seconds=bench.options.seconds)
        figures["peak", "accepted", "1/s"] = peak
        answers = _open(bench, server, tokens, home, rate=0.7 * peak, connections=512)
        figures |= _figures(AT_70, answers)
        answers = _open(bench, server, tokens, home, rate=SENT_MAX, connections=CONNECTIONS_MAX)
        figures |= _figures(CROWDED, answers)
        figures[CROWDED, "goodput to peak", "ratio"] = _goodput(answers) / peak
        with _slowed(store.pid):
            slow = _peak(bench, server, seconds=bench.options.seconds, connections=CROWD)
            figures["peak, slow store", "accepted", "1/s"] = slow
            answers = _open(bench, server, tokens, home, rate=5 * slow, connections=CONNECTIONS_MAX)
        figures |= _figures(OVERLOAD, answers)
        figures[OVERLOAD, "goodput to peak", "ratio"] = _goodput(answers) / slow
    return figures


def _peak(bench: Bench, server: Server, *, seconds: int, connections: int | None = None) -> float:
    connections = connections or bench.options.connections
    load = put_load(server.port, bench.users, bench.cores.rest, seconds=seconds, connections=connections)
    return load.answered(201) / load.seconds


def _goodput(answers: Any) -> float:
    return float(answers["outcomes"]["admitted"]) / float(answers["seconds"])


def _figures(subject: str, answers: Any) -> dict[tuple[str, str, str], float]:
    """Of an open load's result."""
    outcomes, seconds = answers["outcomes"], answers["seconds"]
    figures = {(subject, name, "1/s"): count / seconds for name, count in outcomes.items()}
    figures[subject, "offered", "1/s"] = answers["rate_scheduled"]
    figures[subject, "refused without Retry-After", "requests"] = answers["without_retry_after"]
    figures[subject, "generator lag p99", "ms"] = answers["lag"]["p99_ms"]
    for outcome in ("admitted", "overloaded"):
        latency = answers["latency"][outcome]
        if not latency["corrected"]["count"]:
            continue
        for percentile in ("p50", "p99"):
            name = f"{outcome} {percentile}"
            figures[subject, name, "ms"] = latency["corrected"][f"{percentile}_ms"]
            figures[subject, f"{name} since sent", "ms"] = latency["service"][f"{percentile}_ms"]
    return figures


def _tokens(bench: Bench, home: Path) -> Path:
    found = home / "tokens.json"
    found.write_text(json.dumps([line.split() for line in bench.users.read_text().splitlines()]))
    return found


def _open(bench: Bench, server: Server, tokens: Path, home: Path, *, rate: float, connections: int) -> Any:
    """The result of an open load of some seconds."""
    result = home / "result.json"
    options = {
        "url": f"http://127.0.0.1:{server.port}{RESERVE_PATH}",
        "rate": f"{rate:.0f}",
        "seconds": str(bench.options.seconds),
        "warm-up": str(bench.options.warm_up_seconds),
        "connections": str(connections),
        "connections-min": "64",
        "tokens": str(tokens),
        "sku": SKU,
        "json": str(result),
    }
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = pinned(bench.cores.rest, sys.executable, "-m", "loadtests.openloop", *given, "--poisson")
    # It exits with 1 where it could not keep its schedule, which the lag among the figures says too.
    subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=120)
    return json.loads(result.read_text())


@contextmanager
def _slowed(pid: int) -> Iterator[None]:
    """Let this process run for a share of the time only."""
    stop = threading.Event()

    def alternate() -> None:
        while not stop.is_set():
            os.kill(pid, signal.SIGSTOP)
            stop.wait(_STOPPED_SECONDS)
            os.kill(pid, signal.SIGCONT)
            stop.wait(_RUNNING_SECONDS)

    thread = threading.Thread(target=alternate, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        os.kill(pid, signal.SIGCONT)
