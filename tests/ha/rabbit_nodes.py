"""Three RabbitMQ nodes that are one broker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtests.bench.rabbit import node_environment
from tests.servers import RABBIT_HOME, erlang, free_port, listens, running, wait_until


class Nodes:
    """Where they are. One of them may be killed."""

    def __init__(self, homes: dict[int, Path]) -> None:
        self._homes = homes
        self._ports = {f"amqp://guest:guest@127.0.0.1:{port}/": port for port in homes}
        self.urls = tuple(self._ports)

    def kill(self, url: str) -> None:
        """At once, as if the machine had gone."""
        pid_file = self._homes[self._ports[url]] / "pid"
        if not pid_file.exists():
            return  # it is gone already, or never came
        pid = int(pid_file.read_text())
        pid_file.unlink()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the node is gone")


@contextmanager
def rabbit_nodes(home: Path) -> Iterator[Nodes]:
    """All of them up, and in one cluster."""
    epmd = free_port()
    ports = [free_port() for _ in range(3)]
    homes = {port: home / str(port) for port in ports}
    config = ["cluster_formation.peer_discovery_backend = classic_config"]
    config += [
        f"cluster_formation.classic_config.nodes.{n} = doorbuster-{port}@localhost"
        for n, port in enumerate(ports, 1)
    ]
    nodes = Nodes(homes)
    with ExitStack() as stack:
        epmd_command = [erlang("epmd"), "-port", str(epmd), "-address", "127.0.0.1"]
        stack.enter_context(running(epmd_command, home / "epmd.log"))
        for port, own in homes.items():
            own.mkdir()
            (own / "rabbitmq.conf").write_text("\n".join(config) + "\n")
            environment = node_environment(own, port=port, dist=free_port(), epmd=epmd)
            environment["RABBITMQ_CONFIG_FILE"] = str(own / "rabbitmq.conf")
            command = [str(RABBIT_HOME / "rabbitmq-server")]
            stack.enter_context(running(command, own / "rabbit.log", environment=environment))
        try:
            for port in ports:
                wait_until(lambda port=port: listens(port), "RabbitMQ listens")  # type: ignore[misc]
            yield nodes
        finally:
            for url in nodes.urls:
                nodes.kill(url)
