"""What the processes of an `up` on this machine use of its cores, by role. Known on Linux only."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """What a process and those that it has started have used so far. 0 for one that is gone."""
    try:
        # The name in the second field may contain anything, parentheses too.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, _children(pid)))


def roles(pid: int) -> dict[int, str]:
    """The processes that an `up` keeps, and what each is: a role of ours, `redis` or `postgres`."""
    return {child: role for child in _children(pid) if (role := _role(child)) is not None}


class Watch:
    """What is used from the last look on."""

    def __init__(self, up_pid: int | None) -> None:
        self._pid = up_pid
        self._at, self._used, self._busy = time.monotonic(), self._now(), _machine_seconds()
        self._own = time.process_time()

    def look(self) -> tuple[Mapping[str, float], float, float | None]:
        """Since the last look: cores by role, cores that we used ourselves, and how full the machine was
        (None where that is not known)."""
        at, used, busy, own = time.monotonic(), self._now(), _machine_seconds(), time.process_time()
        seconds = at - self._at
        by_role: defaultdict[str, float] = defaultdict(float)
        for key, now in used.items():
            by_role[key[1]] += max(0.0, now - self._used.get(key, now)) / seconds
        full = None
        if busy is not None and self._busy is not None:
            full = (busy - self._busy) / seconds / (os.cpu_count() or 1)
        ours = (own - self._own) / seconds
        self._at, self._used, self._busy, self._own = at, used, busy, own
        return dict(by_role), ours, full

    def count(self, role: str) -> int:
        """How many processes of this role there are."""
        return sum(1 for _, name in self._used if name == role)

    def _now(self) -> dict[tuple[int, str], float]:
        if self._pid is None:
            return {}
        return {(pid, role): cpu_seconds(pid) for pid, role in roles(self._pid).items()}


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for children in (PROC / str(pid) / "task").glob("*/children"):
            found += map(int, children.read_text().split())
    except OSError:
        pass
    return found


def _role(pid: int) -> str | None:
    try:
        command = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if "doorbuster" in command[:-1]:
        return command[command.index("doorbuster") + 1]
    program = Path(command[0].split(" ")[0]).name  # Redis writes its address behind its name
    for name in ("redis", "valkey", "postgres"):
        if program.startswith(name):
            return "redis" if name == "valkey" else name
    return None


def _machine_seconds() -> float | None:
    """What all cores have been busy so far, with whatever it was."""
    try:
        line = (PROC / "stat").read_text().partition("\n")[0]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, line.split()[1:9])
    ticks = user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK")
