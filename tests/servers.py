"""Real servers for the tests: loopback, a free port, a directory of their own, stopped by their own pid."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import redis

from doorbuster.embedded import postgres_program
from doorbuster.supervisor import credentials
from loadtests.bench.rabbit import node_environment

START_SECONDS_MAX = 60.0
RABBIT_HOME = Path("/usr/lib/rabbitmq/bin")


def _some_ports() -> Iterator[int]:
    """Below those that the system gives to clients, and others than the other test processes'."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ours = range(12_000 + process, 32_000, 8)
    yield from itertools.islice(itertools.cycle(ours), random.randrange(len(ours)), None)


_ports = _some_ports()


def free_port() -> int:
    """Another one each time."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port := next(_ports)))
            return port


def wait_until(condition: Callable[[], bool], what: str, seconds_max: float = START_SECONDS_MAX) -> None:
    """Return as soon as the condition holds."""
    until = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds_max:g} s: {what}")
        time.sleep(0.02)


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            **credentials(user),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def redis_server(
    server: Path,
    home: Path,
    *options: str,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A Redis with every write on disk before it is acknowledged; its URL."""
    port = port or free_port()
    command = [str(server), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    command += [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--maxmemory-policy",
        "noeviction",
        *options,
    ]
    url = f"redis://127.0.0.1:{port}/0"
    log = home / "redis.log"
    with running(command, log, environment=environment), redis.Redis.from_url(url) as client:

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.exceptions.ConnectionError:
                return False

        wait_until(answers, "Redis answers")
        yield url


@contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL; the DSN of a database in it that may create others."""
    home = Path(tempfile.mkdtemp(prefix="doorbuster-test-"))
    home.chmod(0o755)
    try:
        sockets = home / "sockets"
        sockets.mkdir()
        program = postgres_program(home, sockets)
        # The data dies with the test, so it need not survive a power cut.
        command = [*program.command, "-c", "fsync=off", "-c", "full_page_writes=off"]
        dsn = f"postgresql://postgres@/postgres?host={sockets}"
        with running(command, home / "postgres.log", user=program.user):

            def answers() -> bool:
                try:
                    psycopg.connect(dsn).close()
                except psycopg.OperationalError:
                    return False
                return True

            wait_until(answers, "PostgreSQL answers")
            yield dsn
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def rabbit_server(home: Path) -> Iterator[str]:
    """A RabbitMQ node; its AMQP URL."""
    port, dist, epmd = free_port(), free_port(), free_port()
    scripts = RABBIT_HOME if RABBIT_HOME.exists() else Path(shutil.which("rabbitmq-server") or "").parent
    environment = node_environment(home, port=port, dist=dist, epmd=epmd)
    epmd_command = [erlang("epmd"), "-port", str(epmd), "-address", "127.0.0.1"]
    with (
        running(epmd_command, home / "epmd.log"),
        running([str(scripts / "rabbitmq-server")], home / "rabbit.log", environment=environment),
    ):
        wait_until(lambda: listens(port), "RabbitMQ listens")
        yield f"amqp://guest:guest@127.0.0.1:{port}/"
        # The node itself: the script that started it would ask it to stop by a cookie it does not have.
        node = int((home / "pid").read_text())
        os.kill(node, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{node}").exists(), "RabbitMQ has stopped")


def erlang(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/erlang").glob(f"erts-*/bin/{name}"))), None
    )
    assert found is not None, f"{name} comes with RabbitMQ's Erlang"
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
