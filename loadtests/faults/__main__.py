"""Plays the fault matrix. `python -m loadtests.faults --help` says what can be asked."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator

import orjson
import uvloop
from rich.console import Console

from loadtests.faults.log import ClientLog
from loadtests.faults.matrix import FAULTS, Fault
from loadtests.faults.network import enter
from loadtests.faults.options import Options
from loadtests.faults.processes import ProcessFailed
from loadtests.faults.round import Outcome, play, shorter
from loadtests.faults.stack import Servers, Stack, servers, stack
from loadtests.faults.table import table

TABLE_CHARS = 130


def main(arguments: list[str] | None = None) -> int:
    """0 when no round went wrong, 1 when one did, 2 when it could not be played."""
    options = Options.parse(arguments)
    unknown = set(options.only) - FAULTS.keys()
    if unknown:
        there = ", ".join(FAULTS)
        print(f"faults: no such fault: {', '.join(sorted(unknown))}; there are {there}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else TABLE_CHARS)
    try:
        if any(fault.setting.own_network for fault in chosen(options)):
            enter(sys.argv[1:] if arguments is None else arguments)
        outcomes = uvloop.run(run(options, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except ProcessFailed as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    console.print(table(outcomes))
    return 0 if all(one.ok for one in outcomes) else 1


def chosen(options: Options) -> Iterator[Fault]:
    for fault in FAULTS.values():
        if (not options.only or fault.name in options.only) and (fault.quick or not options.quick):
            yield fault


async def run(options: Options, console: Console) -> list[Outcome]:
    """Raises ProcessFailed."""
    outcomes: list[Outcome] = []
    running = asyncio.current_task()
    assert running is not None  # noqa: S101
    # As after Ctrl-C: what was started is stopped on the way out.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    left = deque(_planned(options))
    async with servers() as shared:
        while left:
            await _on_one_stack(shared, left, outcomes, options, console)
    order = list(FAULTS)
    return sorted(outcomes, key=lambda one: order.index(one.fault))


def _planned(options: Options) -> list[tuple[Fault, str]]:
    """Every round: its fault and its seed. Those of one setting come together."""
    faults = list(chosen(options))
    settings = list(dict.fromkeys(fault.setting for fault in faults))
    faults.sort(key=lambda fault: settings.index(fault.setting))
    numbers = range(options.seed, options.seed + options.rounds)
    return [(fault, f"{fault.name}/{number}") for fault in faults for number in numbers]


async def _on_one_stack(
    shared: Servers,
    left: deque[tuple[Fault, str]],
    outcomes: list[Outcome],
    options: Options,
    console: Console,
) -> None:
    """Rounds of one setting, until there is none left, or one has gone wrong: then the next has its own."""
    setting = left[0][0].setting
    async with stack(shared, setting, left[0][1]) as found:
        while left and left[0][0].setting == setting:
            fault, seed = left.popleft()
            load = shorter(fault.load, options.rate, options.seconds)
            outcome, log = await play(found, fault, seed, load)
            outcomes.append(outcome)
            _write(options, outcomes)
            console.print(_line(outcome), highlight=False, markup=False)
            if not outcome.ok:
                _keep(options, outcome, log, found)
            if setting.alone or not outcome.ok:
                return


def _line(outcome: Outcome) -> str:
    verdict = outcome.verdict
    words = "" if outcome.ok else f"  MISSED: {outcome.missed}" if outcome.missed else "  BAD"
    recovered = "–" if outcome.recovered_s is None else f"{outcome.recovered_s:.2f}"
    settled = "–" if outcome.settled_s is None else f"{outcome.settled_s:.2f}"
    drained = "–" if outcome.drained_s is None else f"{outcome.drained_s:.1f}"
    lines = [
        f"{outcome.seed:<40} acknowledged {verdict.acknowledged:>6}  settled {verdict.settled:>6}  "
        f"lost {verdict.lost}+{verdict.admitted}  oversold {verdict.oversold}  double {verdict.double}  "
        f"recovers {recovered} s, settles {settled} s, drains {drained} s  {outcome.outcomes}{words}"
    ]
    lines += [f"    {finding}" for finding in verdict.findings[:10]]
    lines += [f"    no answer: {count} {error}" for error, count in outcome.unknown.items()]
    lines += [f"    seen: {one}" for one in outcome.seen]
    lines += [f"    repair: {one}" for one in outcome.repairs]
    return "\n".join(lines)


def _write(options: Options, outcomes: Iterable[Outcome]) -> None:
    """After each round, so that there is something when somebody loses patience."""
    if options.json is not None:
        found = [one.to_json() for one in outcomes]
        options.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _keep(options: Options, outcome: Outcome, log: ClientLog, stack: Stack) -> None:
    """What the clients saw and the roles said, for whoever looks into it."""
    options.logs.mkdir(exist_ok=True)
    name = outcome.seed.replace("/", "-")
    path = options.logs / f"{name}.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(one) for one in log.to_json()) + b"\n")
    for role in stack.roles.values():
        shutil.copy(role.log, options.logs / f"{name}-{role.log.name}")


if __name__ == "__main__":
    sys.exit(main())
