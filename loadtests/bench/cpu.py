"""Which core does what, and how long a process has been at it."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """One for what is measured, another for all that it needs and for the load."""

    server: int
    rest: int


def find_cores() -> Cores:
    """The first and the last core that we may use: the same one, where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


def pinned(core: int, *command: str) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


def cpu_seconds(pid: int) -> float:
    """What a process and those that it has started have used so far, in user and kernel."""
    # The name in the second field may contain anything, parentheses too.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return ticks / _TICKS_A_SECOND + sum(cpu_seconds(int(child)) for child in children)


def busy_seconds(core: int) -> float:
    """What a core has been busy so far, with whatever it was; also with other guests of its host."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, fields[:8])
            return (user + nice + system + interrupts + soft_interrupts + stolen) / _TICKS_A_SECOND
    raise LookupError(f"there is no core {core}")


def children_seconds() -> float:
    """What our own processes that have ended used, all together."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True, slots=True)
class CpuUse:
    process_seconds: float
    load_seconds: float
    """Of our own processes that have ended meanwhile, if that was on this core."""
    busy: float
    """The share of the core's time that it was not idle."""
    others: float
    """The share that was neither the process's nor the load's."""


class Stopwatch:
    """What a process uses from now on, and who else there is on its core."""

    def __init__(self, core: int, pid: int, *, load_too: bool) -> None:
        """`load_too`: whether what of our own processes ends meanwhile has run on this core."""
        self._core, self._pid, self._load_too = core, pid, load_too
        self._started = self._now()

    def read(self) -> CpuUse:
        at, busy, used, load = (now - then for now, then in zip(self._now(), self._started, strict=True))
        load = load if self._load_too else 0.0
        return CpuUse(used, load, busy / at, max(0.0, busy - used - load) / at)

    def _now(self) -> tuple[float, float, float, float]:
        return time.monotonic(), busy_seconds(self._core), cpu_seconds(self._pid), children_seconds()
