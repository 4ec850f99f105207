"""The service that the demo looks at: `doorbuster up` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from doorbuster.settings import Settings, read_settings
from reservation.outcomes import Fault

START_SECONDS_MAX = 90.0


class DemoFailed(Fault):
    """The demo could not run. The message is one line."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where it is, the keys to it, and what a command needs to reach it."""

    url: str
    jwt_secret: str
    service_key: str
    settings: Settings


@asynccontextmanager
async def running_service(data_dir: Path, outside_url: str) -> AsyncIterator[Service]:
    """An embedded stack that sends refunds and notifications to `outside_url`. Raises DemoFailed."""
    data_dir.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DOORBUSTER_")},
        "DOORBUSTER_REFUND_URL": f"{outside_url}/refunds",
        "DOORBUSTER_NOTIFY_URL": f"{outside_url}/notices",
    }
    with (data_dir / "up.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "doorbuster", "up", "--port", "0", "--workers", "2"),
            *("--data-dir", str(data_dir), "--sandbox", "--no-samples"),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment,
        )
    try:
        said = ""
        if process.stdout is not None:
            async with asyncio.timeout(START_SECONDS_MAX):
                said = (await process.stdout.readline()).decode().strip()
        if not said.startswith("ready "):
            raise DemoFailed(f"doorbuster up did not start:\n{(data_dir / 'up.log').read_text()}")
        # Of its own, whatever the environment says.
        found = read_settings(**json.loads((data_dir / "stack.json").read_text())["settings"])
        yield Service(said.removeprefix("ready "), found.jwt_secret or "", found.service_key or "", found)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
