"""A network of our own, with nothing in it but a loopback, in which the kernel may lose packets.

Whoever is started in it has no other. It is gone with the last of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtests.faults.processes import ProcessFailed

_OURS = "FAULTS_NETWORK"
"""Set where we are in it."""
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_SECONDS_MAX = 10
_LOSSY = (
    "table inet faults {{ chain lossy {{ type filter hook input priority 0;"
    ' iif "lo" meta l4proto tcp numgen random mod 100 < {percent} counter drop; }}; }}'
)


def enter(arguments: Sequence[str]) -> None:
    """Become `python -m loadtests.faults` with these arguments in a network of our own, or make that ready
    where we are in it already. Raises ProcessFailed where there can be none."""
    if os.environ.get(_OURS):
        _run("ip", "link", "set", "lo", "up")
        return
    # Who is not root may have one by a user namespace, in which they stay who they are.
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    command = ["unshare", *user, "--net", "--"]
    try:
        _run(*command, _program("nft"), "list", "ruleset")
    except ProcessFailed as error:
        raise ProcessFailed(
            "where the kernel is to lose packets, the matrix plays in a network namespace of its own, for"
            f" which it needs root or user namespaces, and nf_tables: {error}; --only leaves faults out"
        ) from error
    os.environ[_OURS] = "1"
    sys.stdout.flush()
    again = [sys.executable, "-m", "loadtests.faults", *arguments]
    os.execvp(command[0], [*command, *again])  # noqa: S606  (we are to become it)


class Losses:
    """What the kernel has lost since the beginning."""

    def __init__(self) -> None:
        self._resent = _resent()
        self.packets = self.segments_resent = 0
        """Packets that were dropped, and segments that TCP sent again. Both when it is over."""

    def count(self) -> None:
        found = re.search(r"counter packets (\d+)", _run("nft", "list", "chain", "inet", "faults", "lossy"))
        self.packets = int(found[1]) if found else 0
        self.segments_resent = _resent() - self._resent


@contextmanager
def lossy(percent: int) -> Iterator[Losses]:
    """The kernel drops so many of all TCP packets, at random. Raises ProcessFailed."""
    losses = Losses()
    _run("nft", _LOSSY.format(percent=percent))
    try:
        yield losses
        losses.count()
    finally:
        _run("nft", "delete table inet faults")


def _resent() -> int:
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("RetransSegs")])


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise ProcessFailed(f"{name} is not installed; scripts/install-servers does that")
    return found


def _run(*command: str) -> str:
    """What it says. Raises ProcessFailed."""
    done = subprocess.run(
        [_program(command[0]), *command[1:]], capture_output=True, text=True, timeout=_SECONDS_MAX
    )
    if done.returncode:
        raise ProcessFailed(f"{command[0]}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout
