"""Processes that may be killed, stopped, continued and started again, each by its own pid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from doorbuster.supervisor import credentials

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
LOG_CHARS_SHOWN = 2_000
_LOOK_SECONDS = 0.02


class ProcessFailed(Exception):
    """A process did not start. The message says which, and ends with the end of its log."""


class Process:
    """A program with a log of its own, as often as it is started."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        home: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        ready: Callable[[int], bool] = lambda pid: True,
    ) -> None:
        """`ready` is given the process' pid, and may raise OSError for no."""
        self.name = name
        self.command = list(command)
        self.environment = dict(environment or {})
        self.log = home / f"{name}.log"
        self._user = user
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that gets our signals. Raises ProcessFailed when there is none."""
        if self._process is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._process.pid

    def begin(self) -> None:
        """Start it, and do not wait until it is ready."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop it
                **credentials(self._user),
            )

    async def start(self) -> None:
        """Start it, and return once it is ready. Raises ProcessFailed."""
        self.begin()
        await self.wait_ready()

    async def wait_ready(self) -> None:
        until = time.monotonic() + START_SECONDS_MAX
        while not await asyncio.to_thread(self._is_ready):
            if not self.running or time.monotonic() > until:
                raise ProcessFailed(f"{self.name} did not start:\n{self.said()}")
            await asyncio.sleep(_LOOK_SECONDS)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-LOG_CHARS_SHOWN:]

    def send(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        """End it by a signal, SIGKILL where it takes too long; its status, None where it did not run."""
        if not self.running:
            return None
        self.send(number)
        return await self.ended()

    async def stop(self) -> int | None:
        """As an operator stops it."""
        self.send(signal.SIGCONT)
        return await self.kill(signal.SIGTERM)

    async def ended(self, seconds_max: float = STOP_SECONDS_MAX) -> int:
        """Its status, once it has ended; it is killed after so long."""
        process = self._process
        if process is None:
            raise ProcessFailed(f"{self.name} was not started")
        until = time.monotonic() + seconds_max
        while process.poll() is None:
            if time.monotonic() > until:
                process.kill()
            await asyncio.sleep(_LOOK_SECONDS)
        return int(process.returncode)

    async def ends(self, seconds_max: float = STOP_SECONDS_MAX) -> int:
        """Its status, once it has ended without us. Raises ProcessFailed where it does not."""
        until = time.monotonic() + seconds_max
        while self.running:
            if time.monotonic() > until:
                await self.kill()
                raise ProcessFailed(f"{self.name} went on for {seconds_max:g} s, and had to be killed")
            await asyncio.sleep(_LOOK_SECONDS)
        return await self.ended()

    def _is_ready(self) -> bool:
        try:
            return self._ready(self.pid)
        except OSError:
            return False


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the port, which others may share with it."""
    wanted = f":{port:04X}"
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted) and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if descriptor.readlink().as_posix() in inodes:
                return True
        except OSError:  # closed meanwhile
            continue
    return False
