"""A `doorbuster up` of one's own, for as long as a load test takes. Pure of Locust."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from doorbuster.supervisor import die_with_parent

STOP_SECONDS_MAX = 60.0
LOG_LINES_SHOWN = 20


class NotStarted(Exception):
    """The stack did not come up. The message says what it said."""


@dataclass(frozen=True, slots=True)
class Embedded:
    url: str
    data_dir: Path
    """Its secrets are there."""


@contextmanager
def embedded(workers: int) -> Iterator[Embedded]:
    """On a free port, with its own data, which nobody keeps; stopped by its pid. Raises NotStarted."""
    with tempfile.TemporaryDirectory(prefix="doorbuster-load-") as home:
        data_dir, log = Path(home) / "data", Path(home) / "up.log"
        command = [sys.executable, "-m", "doorbuster", "up", "--port", "0", "--no-samples"]
        command += ["--data-dir", str(data_dir), "--workers", str(workers)]
        # Whatever servers our settings name, this one is to be alone.
        environment = {name: value for name, value in os.environ.items() if "DOORBUSTER" not in name}
        with log.open("wb") as said:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                start_new_session=True,  # a Ctrl-C in the terminal ends the load first
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        try:
            yield Embedded(_ready(process, log), data_dir)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address, once it is ready. It gives up by itself when it cannot be."""
    assert process.stdout is not None  # noqa: S101  (it is a pipe)
    for line in process.stdout:
        word, _, url = line.decode().strip().partition(" ")
        if word == "ready":
            return url
    process.wait()
    last = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    raise NotStarted("doorbuster up did not start:\n" + "\n".join(last))
