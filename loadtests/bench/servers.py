"""Real servers: loopback, a free port, a directory of their own, stopped by their own pid."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from doorbuster.embedded import find_redis, postgres_program
from doorbuster.supervisor import credentials
from loadtests.bench.cpu import pinned
from settlement.migrate import migrate

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
LOG_CHARS_SHOWN = 2_000


class ServerFailed(Exception):
    """A server did not start. The message says which, and ends with the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    port: int
    pid: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def directory() -> Iterator[Path]:
    """One that is gone after the block. Other users may look in: some servers change to another."""
    home = Path(tempfile.mkdtemp(prefix="doorbuster-bench-"))
    try:
        home.chmod(0o755)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    home: Path,
    ready: Callable[[], bool],
    *,
    environment: Mapping[str, str] | None = None,
    at: Path = ROOT,
    user: str | None = None,
) -> Iterator[int]:
    """A process from when it is ready until the end of the block; its pid."""
    log = home / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=at,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop it
            **credentials(user),
        )
        try:
            until = time.monotonic() + START_SECONDS_MAX
            while not ready():
                if process.poll() is not None or time.monotonic() > until:
                    said = log.read_text("utf-8", "replace")[-LOG_CHARS_SHOWN:]
                    raise ServerFailed(f"{name} did not start:\n{said}")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def http_server(
    name: str,
    command: Callable[[int], Sequence[str]],
    home: Path,
    core: int,
    *,
    environment: Mapping[str, str] | None = None,
    at: Path = ROOT,
) -> Iterator[Server]:
    """What `command` makes of a port, on a core of its own."""
    port = free_port()
    pinned_command = pinned(core, *command(port))
    ready = lambda: listens(port)  # noqa: E731
    with running(name, pinned_command, home, ready, environment=environment, at=at) as pid:
        yield Server(port, pid)


@contextmanager
def redis_server(home: Path, core: int, fsync: str, program: str | None = None) -> Iterator[Server]:
    """`program` is one that takes Redis' options; None is the Redis that `up` embeds."""
    port = free_port()
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(home),
        "save": "",
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
        # In so short a life, a fast subject would come to a rewrite of the log, and a slow one would not.
        "auto-aof-rewrite-percentage": "0",
    }
    command = [
        program or str(find_redis()[0]),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]
    with running("redis", pinned(core, *command), home, lambda: listens(port)) as pid:
        yield Server(port, pid)


@contextmanager
def book_server(home: Path, core: int) -> Iterator[str]:
    """A PostgreSQL with the book's schema; its DSN."""
    sockets = home / "sockets"
    sockets.mkdir()
    program = postgres_program(home, sockets)
    dsn = f"postgresql://postgres@/postgres?host={sockets}"

    def answers() -> bool:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    with running("postgres", pinned(core, *program.command), home, answers, user=program.user):
        migrate(dsn)
        yield dsn


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
