"""The servers of the stack under test: each on loopback or a unix socket, on data of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import psycopg

from doorbuster.embedded import find_redis, postgres_program
from doorbuster.supervisor import credentials
from loadtests.bench.rabbit import node_environment
from loadtests.bench.servers import free_port
from loadtests.faults.processes import Process, ProcessFailed
from settlement.migrate import migrate

RABBIT_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
TEMPLATE = "template_book"
_COMMAND_SECONDS_MAX = 60


class RedisServer(Process):
    """A Redis whose log outlives it."""

    def __init__(self, home: Path, fsync: str, *options: str, name: str = "redis") -> None:
        self.data = home / name
        self.data.mkdir()
        self.port = free_port()
        program, _ = find_redis()
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": fsync,
            "maxmemory-policy": "noeviction",
            "auto-aof-rewrite-percentage": "0",  # so that the log has one file to cut
            "enable-debug-command": "local",
        }
        arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
        super().__init__(name, [str(program), *arguments, *options], home, ready=lambda pid: self._answers())

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log_file(self) -> Path:
        """The part of its append-only log that it writes to."""
        return max(self.data.glob("appendonlydir/*.incr.aof"), key=lambda one: one.stat().st_mtime)

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")


class PostgresServer(Process):
    """A PostgreSQL on a unix socket and on a port, with a template of the book in it."""

    def __init__(self, home: Path, name: str = "postgres") -> None:
        self.home = home / name
        self.home.mkdir()
        self.sockets = self.home / "sockets"
        self.sockets.mkdir()
        self.port = free_port()
        program = postgres_program(self.home, self.sockets)
        self._system_user = program.user
        settings = {"shared_buffers": "32MB", "listen_addresses": "127.0.0.1", "port": str(self.port)}
        arguments = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        super().__init__(
            name, [*program.command, *arguments], home, user=program.user, ready=lambda pid: self._answers()
        )

    def dsn(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.sockets}&port={self.port}"

    def prepare(self) -> None:
        """Make the template that every book is a copy of."""
        self.run(f"CREATE DATABASE {TEMPLATE}")
        migrate(self.dsn(TEMPLATE))

    def new_book(self, name: str) -> None:
        self.run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")

    def run(self, *statements: str) -> None:
        """As a superuser, each in a transaction of its own."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def follow(self, primary: PostgresServer) -> None:
        """Begin anew as a copy of a server that runs, which follows it once it is started. Raises
        ProcessFailed."""
        data = self.home / "postgres"
        shutil.rmtree(data)
        data.mkdir(mode=0o700)
        if self._system_user is not None:
            shutil.chown(data, self._system_user)
        copy = [str(Path(self.command[0]).with_name("pg_basebackup")), "-D", str(data)]
        copy += ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
        copy += ["--write-recovery-conf", "--checkpoint=fast"]
        done = subprocess.run(
            copy,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS_MAX,
            **credentials(self._system_user),
        )
        if done.returncode:
            raise ProcessFailed(f"pg_basebackup: {done.stderr}")

    def leave(self) -> None:
        """Follow nobody any more, and go on as a standby that hears nothing."""
        self.run("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class PostgresPair:
    """A primary and its standby, which follows asynchronously."""

    def __init__(self, home: Path) -> None:
        self.primary, self.standby = (PostgresServer(home, name) for name in ("first", "second"))

    async def start(self) -> None:
        await self.primary.start()
        await asyncio.to_thread(self.primary.prepare)
        await self.stand_by()

    async def stand_by(self) -> None:
        """The standby begins anew, with what the primary has. Raises ProcessFailed."""
        await asyncio.to_thread(self.standby.follow, self.primary)
        await self.standby.start()

    async def fail_over(self) -> None:
        """The primary is gone: the standby is the primary now."""
        await asyncio.to_thread(self.standby.run, "SELECT pg_promote()")
        self.primary, self.standby = self.standby, self.primary

    async def stop(self) -> None:
        for one in (self.standby, self.primary):
            await one.kill(signal.SIGINT)

    def dsn(self, database: str) -> str:
        """Both, in an order that does not change."""
        ports = sorted((one.port, str(one.sockets)) for one in (self.primary, self.standby))
        hosts = ",".join(sockets for _, sockets in ports)
        return (
            f"postgresql://postgres@/{database}?host={hosts}&port={','.join(str(port) for port, _ in ports)}"
        )


class RabbitNode(Process):
    """A RabbitMQ node. Its script starts it, and it is the node itself that gets our signals."""

    def __init__(self, home: Path, names: Process, epmd: int, name: str = "rabbit") -> None:
        self.port, dist = free_port(), free_port()
        self.names = names
        node_home = home / name
        node_home.mkdir()
        self._pid_file = node_home / "pid"
        environment = node_environment(node_home, port=self.port, dist=dist, epmd=epmd)
        self.node = environment["RABBITMQ_NODENAME"]
        super().__init__(
            name,
            [str(RABBIT_SCRIPTS / "rabbitmq-server")],
            home,
            environment=environment,
            ready=lambda pid: self._answers(),
        )

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        if not self.running:
            return None
        with suppress(OSError, ValueError):
            os.kill(int(self._pid_file.read_text()), number)
        return await self.ended()

    def begin(self) -> None:
        self._pid_file.unlink(missing_ok=True)
        super().begin()

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` says. Raises ProcessFailed."""
        done = subprocess.run(
            [
                str(RABBIT_SCRIPTS / "rabbitmqctl"),
                "-n",
                self.node,
                "--erlang-cookie",
                "doorbuster",
                *arguments,
            ],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS_MAX,
        )
        if done.returncode:
            raise ProcessFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def join(self, other: RabbitNode) -> None:
        """Become one cluster with it. Raises ProcessFailed."""
        for step in (("stop_app",), ("join_cluster", other.node), ("start_app",)):
            self.control(*step)

    def _answers(self) -> bool:
        if not self._pid_file.exists():
            return False
        # That the port is open is not enough: a node listens a while before it lets anybody in.
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"


def epmd(home: Path) -> tuple[Process, int]:
    """The name server of RabbitMQ's nodes, and its port."""
    port = free_port()
    found = shutil.which("epmd") or str(next(iter(sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd")))))
    command = [found, "-port", str(port), "-address", "127.0.0.1"]
    return Process("epmd", command, home, ready=lambda pid: _connects(port)), port


def _connects(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
