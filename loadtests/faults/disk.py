"""A small disk of our own, to be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILLER = "filler"
_SECONDS_MAX = 10


def may_mount() -> bool:
    return os.geteuid() == 0


@contextmanager
def small_disk(at: Path, size_mb: int) -> Iterator[Path]:
    """A file system of that size, in memory; unmounted at the end. Root's to make."""
    at.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0755", "doorbuster-faults", str(at))
    try:
        yield at
    finally:
        _run("umount", "--lazy", str(at))


def fill(at: Path, *, leaving_bytes: int) -> None:
    """Take all of the disk but so much."""
    free = os.statvfs(at)
    size = max(0, free.f_bavail * free.f_frsize - leaving_bytes)
    with (at / FILLER).open("wb") as filler:
        if size:
            os.posix_fallocate(filler.fileno(), 0, size)


def empty(at: Path) -> None:
    """Give it back."""
    (at / FILLER).unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS_MAX)
