"""Load: connections that each ask again as soon as they are answered."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.cpu import pinned
from loadtests.bench.plan import BODY, CAMPAIGN

SCRIPT = Path(__file__).with_name("wrk.lua")
RESERVE_PATH = f"/v1/campaigns/{CAMPAIGN}/reservations"
_COUNTED = "counted "
_OVERTIME_SECONDS_MAX = 30.0


class LoadFailed(Exception):
    """wrk did not do what it should. The message is what it said."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of some seconds of it."""

    duration_us: int
    statuses: Mapping[str, int]
    """How many answers had each."""
    broken: int
    """Connections that could not be made, written to or read."""
    late: int
    """Answers that took over two seconds."""

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())

    def answered(self, status: int) -> int:
        return self.statuses.get(str(status), 0)

    @property
    def seconds(self) -> float:
        return self.duration_us / 1e6


def installed() -> bool:
    return shutil.which("wrk") is not None


def put_load(port: int, users: Path, core: int, *, seconds: int, connections: int) -> Load:
    """Reserve for some seconds. At their end, what is under way on each connection is not waited for."""
    wrk = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    script = ["--script", str(SCRIPT), f"http://127.0.0.1:{port}"]
    given = ["--", str(users), secrets.token_hex(6), BODY.decode(), RESERVE_PATH]
    done = subprocess.run(
        pinned(core, *wrk, *script, *given),
        capture_output=True,
        text=True,
        timeout=seconds + _OVERTIME_SECONDS_MAX,
    )
    counted = [line for line in done.stdout.splitlines() if line.startswith(_COUNTED)]
    if done.returncode != 0 or len(counted) != 1:
        raise LoadFailed(done.stdout + done.stderr)
    return Load(**json.loads(counted[0].removeprefix(_COUNTED)))
