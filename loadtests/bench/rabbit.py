"""A RabbitMQ node, as the other servers here: loopback, free ports, its own directory, stopped by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtests.bench.cpu import pinned
from loadtests.bench.servers import STOP_SECONDS_MAX, Server, free_port, listens, running

_DEBIAN = "/usr/lib/rabbitmq/bin"
"""Its own script: what Debian has on the PATH changes to a user that may not write here."""


def installed() -> bool:
    return bool(_program("rabbitmq-server") and _program("epmd"))


def node_environment(home: Path, *, port: int, dist: int, epmd: int) -> dict[str, str]:
    """For a node that lives in this directory, on these ports, with one scheduler and no plugins."""
    (home / "plugins").write_text("[].")
    return {
        "HOME": str(home),  # its cookie lies there
        "RABBITMQ_NODENAME": f"doorbuster-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-setcookie doorbuster +S 1:1 +sbwt none",
    }


@contextmanager
def rabbit_server(home: Path, core: int) -> Iterator[Server]:
    """A node with one scheduler: it has one core."""
    port, dist, epmd = free_port(), free_port(), free_port()
    environment = node_environment(home, port=port, dist=dist, epmd=epmd)
    names = [_program("epmd"), "-port", str(epmd), "-address", "127.0.0.1"]
    node_command = pinned(core, _program("rabbitmq-server"))
    with (
        running("epmd", names, home, lambda: listens(epmd)),
        running("rabbit", node_command, home, lambda: listens(port), environment=environment),
    ):
        node = int((home / "pid").read_text())
        try:
            yield Server(port, node)
        finally:
            # The node itself: the script that started it would ask it to stop by a cookie it does not have.
            os.kill(node, signal.SIGTERM)
            until = time.monotonic() + STOP_SECONDS_MAX
            while Path(f"/proc/{node}").exists() and time.monotonic() < until:
                time.sleep(0.05)


def _program(name: str) -> str:
    """Where it is; empty where it is not. epmd comes with RabbitMQ's Erlang."""
    found = shutil.which(name, path=os.pathsep.join([_DEBIAN, os.environ.get("PATH", "")]))
    erlang = sorted(Path("/usr/lib/erlang").glob(f"erts-*/bin/{name}"))
    return found or next(map(str, erlang), "")
