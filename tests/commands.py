"""`doorbuster` commands, each in a process of its own, forked off one that has imported everything: to import
takes a second of CPU, and it is not what most tests of a command are about."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "doorbuster.cli",
        "doorbuster.report.run",
        "doorbuster.stack",
        "gateway.app",
        "gateway.server",
        "settlement.audit",
        "settlement.patrol",
        "settlement.rabbit",
        "settlement.report.report",
    ]
)
Done = subprocess.CompletedProcess[str]


def doorbuster(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    seconds_max: float = 60,
) -> Done:
    """What became of `doorbuster ARGUMENTS`. The environment is this process's, unless another is given."""
    with tempfile.TemporaryDirectory(prefix="doorbuster-command-") as home:
        said, complained = Path(home, "stdout"), Path(home, "stderr")
        process = _FORKS.Process(
            target=_run,
            args=(arguments, dict(environment or os.environ), directory or Path.cwd(), said, complained),
        )
        process.start()
        process.join(seconds_max)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(arguments, seconds_max)
        code = process.exitcode
        assert code is not None
        process.close()
        return subprocess.CompletedProcess(arguments, code, said.read_text(), complained.read_text())


def _run(
    arguments: tuple[str, ...], environment: dict[str, str], directory: Path, said: Path, complained: Path
) -> None:
    for file, stream in ((said, 1), (complained, 2)):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["doorbuster", *arguments]
    from doorbuster.cli import main

    main()
