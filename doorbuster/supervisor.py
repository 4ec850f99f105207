"""Keeping processes alive: what was started is started again when it ends, until it is to stop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 0.2, 5.0
STEADY_SECONDS = 10.0
"""A process that lived so long starts again at once; one that did not, waits twice as long as before."""
STARTED_AGAIN = "SUPERVISOR_STARTED_AGAIN"
"""In the environment of a process that takes the place of one that ended by itself."""
_PR_SET_PDEATHSIG = 1
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """A process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds_max: float = 15.0
    tier: int = 1
    """0 serves what is above it. The highest tier stops first, all of a tier together."""
    user: str | None = None
    output: Path | None = None
    """A file for what it prints; None is our own standard error."""
    ended: Callable[[], None] | None = None
    """What is to be done when its process has ended by itself, in a thread, before it is started again."""


class Supervisor:
    """Runs programs. If this process dies, however hard, so do they."""

    def __init__(self) -> None:
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._programs: dict[str, Program] = {}

    def start(self, program: Program) -> None:
        self._programs[program.name] = program
        self._keepers[program.name] = asyncio.create_task(self._keep(program))

    def pid(self, name: str) -> int | None:
        """The process id that a program has now."""
        process = self._processes.get(name)
        return process.pid if process is not None and process.returncode is None else None

    async def stop(self) -> None:
        """Stop all, tier by tier: what serves goes before what it is served by."""
        tiers = sorted({program.tier for program in self._programs.values()}, reverse=True)
        for tier in tiers:
            programs = [program for program in self._programs.values() if program.tier == tier]
            for program in programs:
                self._keepers[program.name].cancel()
            await asyncio.gather(*(self._keepers[one.name] for one in programs), return_exceptions=True)
            await asyncio.gather(*(self._end(program) for program in programs))

    async def _keep(self, program: Program) -> None:
        pause, environment = RESTART_SECONDS_MIN, program.environment
        while True:
            started = time.monotonic()
            process = self._processes[program.name] = await _spawn(program, environment)
            status = await process.wait()
            lived = time.monotonic() - started
            pause = RESTART_SECONDS_MIN if lived > STEADY_SECONDS else min(pause * 2, RESTART_SECONDS_MAX)
            _log.error(
                "ended", program=program.name, status=status, lived_s=round(lived, 1), again_in_s=pause
            )
            if program.ended is not None:
                try:
                    await asyncio.to_thread(program.ended)
                except Exception:  # whatever it is, the program is to run
                    _log.exception("not_tidied", program=program.name)
            await asyncio.sleep(pause)
            environment = {**program.environment, STARTED_AGAIN: "1"}

    async def _end(self, program: Program) -> None:
        process = self._processes.get(program.name)
        if process is None or process.returncode is not None:
            return
        process.send_signal(program.stop_signal)
        try:
            async with asyncio.timeout(program.stop_seconds_max):
                await process.wait()
        except TimeoutError:
            _log.error("killed", program=program.name, after_s=program.stop_seconds_max)
            process.kill()
            await process.wait()


def credentials(user: str | None) -> dict[str, Any]:
    """What makes a new process that user's and nobody else's; nothing, to leave it ours."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


async def _spawn(program: Program, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    output: Any = None
    if program.output is not None:
        output = os.open(program.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        return await asyncio.create_subprocess_exec(
            *program.command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output if output is not None else sys.stderr.fileno(),
            stderr=output if output is not None else sys.stderr.fileno(),
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop them in order
            preexec_fn=die_with_parent(program.stop_signal),
            **credentials(program.user),
        )
    finally:
        if output is not None:
            os.close(output)


def end_as_after_ctrl_c() -> None:
    """Have a SIGTERM end this process as a Ctrl-C does, so that it tidies up on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """On Linux, have the kernel send `number` to the child when we are gone."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # we died before the child could ask
            os._exit(1)

    return ask
