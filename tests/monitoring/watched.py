"""A whole deployment that is watched: real servers, roles and exporters, and a real Prometheus over them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp
from aiohttp import web
from redis.asyncio import Redis

from doorbuster.settings import Settings
from loadtests.faults.processes import Process
from loadtests.faults.provider import Provider
from loadtests.faults.servers import PostgresServer, RabbitNode, RedisServer, epmd
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.scaled import write_configuration
from tests.servers import free_port, listens
from tests.stack import SECRETS, Client

ROOT = Path(__file__).parents[2]
DATABASE = "doorbuster"
JOBS = ("gateway", "relay", "worker", "sweeper", "rabbitmq", "redis", "postgres", "host", "prometheus")
QUICK_PATROL = """
from doorbuster.cli import main
from settlement.patrol import Patrol

Patrol.pause_seconds, Patrol.share = 0.5, 0.5
main()
"""
"""A command of ours whose patrol goes round more often, as all is more often here."""
_RABBIT = """\
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {port}
collect_statistics_interval = 1000
"""


class Outside(Provider):
    """The payment provider and the merchant, either of whom may take nothing for a while."""

    takes_refunds = True

    async def _take_refund(self, request: web.Request) -> web.Response:
        if not self.takes_refunds:
            return web.Response(status=500)
        return await super()._take_refund(request)


@dataclass
class Watched:
    """A deployment, and who watches it."""

    home: Path
    redis: RedisServer
    replica: RedisServer
    postgres: PostgresServer
    standby: PostgresServer
    rabbit: RabbitNode
    outside: Outside
    settings: Settings
    store: Redis
    client: Client
    prometheus: Prometheus
    processes: dict[str, Process] = field(default_factory=dict)
    """Roles and exporters, by name."""

    @property
    def dsn(self) -> str:
        return self.postgres.dsn(DATABASE)

    @property
    def standby_dsn(self) -> str:
        return self.standby.dsn(DATABASE)

    async def restart(self, name: str) -> None:
        await self.processes[name].stop()
        await self.processes[name].start()

    async def doorbuster(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of ours, as an operator gives it."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "doorbuster", *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env={**self.settings.environment(), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        )


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  (our own)
        return bool(answer.status == 200)


def _rabbit(home: Path, names: Process, epmd_port: int, port: int) -> RabbitNode:
    """A node that tells Prometheus of itself, each second."""
    node = RabbitNode(home, names, epmd_port)
    (home / "rabbitmq.conf").write_text(_RABBIT.format(port=port))
    node.environment["RABBITMQ_CONFIG_FILE"] = str(home / "rabbitmq.conf")
    Path(node.environment["RABBITMQ_ENABLED_PLUGINS_FILE"]).write_text("[rabbitmq_prometheus].")
    return node


def _make_exporters_role(postgres: PostgresServer) -> None:
    """With the script that docker-compose.yml has PostgreSQL run."""
    tools = Path(postgres.command[0]).parent
    subprocess.run(
        [ROOT / "monitoring" / "postgres" / "exporter_role.sh"],
        check=True,
        env={
            "PATH": f"{tools}:/usr/bin:/bin",
            "PGHOST": str(postgres.sockets),
            "PGPORT": str(postgres.port),
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": DATABASE,
            "POSTGRES_EXPORTER_PASSWORD": "of the exporter's own",
        },
    )


def _standby(home: Path, postgres: PostgresServer) -> PostgresServer:
    """One that follows, made of a copy of what there is."""
    standby = PostgresServer(home, "standby")
    standby.follow(postgres)
    return standby


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    async with AsyncExitStack() as closing:
        home = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="doorbuster-watched-")))
        home.chmod(0o755)  # PostgreSQL is another user's
        jobs = (
            "gateway",
            "relay",
            "worker",
            "sweeper",
            "rabbitmq",
            "redis",
            "postgres",
            "host",
            "prometheus",
        )
        ports = {job: free_port() for job in jobs}
        names, epmd_port = epmd(home)
        redis, postgres = RedisServer(home, "always"), PostgresServer(home)
        replica = RedisServer(home, "everysec", "--replicaof", f"127.0.0.1 {redis.port}", name="replica")
        rabbit = _rabbit(home, names, epmd_port, ports["rabbitmq"])
        for server in (names, redis, replica):
            closing.push_async_callback(server.kill)
        closing.push_async_callback(postgres.kill, signal.SIGQUIT)
        closing.push_async_callback(rabbit.kill)
        await names.start()
        rabbit.begin()
        for server in (redis, replica, postgres):
            await server.start()
        await asyncio.to_thread(postgres.prepare)
        await asyncio.to_thread(postgres.new_book, DATABASE)
        await asyncio.to_thread(_make_exporters_role, postgres)
        standby = await asyncio.to_thread(_standby, home, postgres)
        closing.push_async_callback(standby.kill, signal.SIGQUIT)
        standby.begin()
        await rabbit.wait_ready()
        url = f"http://127.0.0.1:{ports['gateway']}"
        outside = Outside(SECRETS["DOORBUSTER_PSP_SECRET"], Random(6))
        await outside.open(url)
        closing.push_async_callback(outside.close)
        secrets = {name.removeprefix("DOORBUSTER_").lower(): value for name, value in SECRETS.items()}
        settings = Settings(
            redis_url=redis.url,
            postgres_dsn=postgres.dsn(DATABASE),
            amqp_url=rabbit.url,
            refund_url=outside.refund_url,
            notify_url=outside.notify_url,
            public_url=url,
            **secrets,  # type: ignore[arg-type]
        )
        processes = _processes(home, ports, settings, redis, postgres)
        targets = {job: [{"targets": [f"127.0.0.1:{port}"]}] for job, port in ports.items()}
        targets["rabbitmq-queues"] = targets["rabbitmq"]
        # One exporter may be asked about others: the replica has no other.
        labels = {"__metrics_path__": "/scrape", "__param_target": replica.url, "instance": "replica"}
        targets["redis"].append({**targets["redis"][0], "labels": labels})  # type: ignore[dict-item]
        write_configuration(home, targets)
        for process in processes.values():
            closing.push_async_callback(process.stop)
            process.begin()
        for process in processes.values():
            await process.wait_ready()
        session = await closing.enter_async_context(aiohttp.ClientSession())
        prometheus = Prometheus(f"http://127.0.0.1:{ports['prometheus']}", session)
        store = Redis.from_url(redis.url)
        closing.push_async_callback(store.aclose)
        client = Client(url, session)
        await prometheus.until_all_are_up(len(targets) + 1)
        yield Watched(
            home,
            redis,
            replica,
            postgres,
            standby,
            rabbit,
            outside,
            settings,
            store,
            client,
            prometheus,
            processes,
        )


def _processes(
    home: Path, ports: dict[str, int], settings: Settings, redis: RedisServer, postgres: PostgresServer
) -> dict[str, Process]:
    ours = [sys.executable, "-m", "doorbuster"]
    environment = {**settings.environment(), "PYTHONUNBUFFERED": "1"}
    url = f"http://127.0.0.1:{ports['gateway']}/readyz"
    found = {
        "gateway": Process(
            "gateway",
            [*ours, "gateway", "--port", str(ports["gateway"]), "--workers", "2"],
            home,
            environment=environment,
            ready=lambda pid: _answers(url),
        )
    }
    for role in ("relay", "worker", "sweeper"):
        command = ours if role != "sweeper" else [sys.executable, "-c", QUICK_PATROL]
        found[role] = Process(
            role,
            [*command, role, "--metrics-port", str(ports[role])],
            home,
            environment=environment,
            ready=lambda pid, port=ports[role]: listens(port),  # type: ignore[misc]
        )
    source = f"host={postgres.sockets} port={postgres.port} user=exporter dbname={DATABASE} sslmode=disable"
    for name, program, flags in (
        ("redis", "redis", ["--redis.addr", redis.url, "--include-system-metrics"]),
        ("postgres", "postgres", []),
        ("host", "node", []),
    ):
        found[name] = Process(
            f"{name}-exporter",
            [f"prometheus-{program}-exporter", *flags, "--web.listen-address", f"127.0.0.1:{ports[name]}"],
            home,
            environment={"DATA_SOURCE_NAME": source},
            ready=lambda pid, port=ports[name]: listens(port),  # type: ignore[misc]
        )
    found["prometheus"] = Process(
        "prometheus",
        [
            "prometheus",
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
            "--log.level=warn",
        ],
        home,
        ready=lambda pid: listens(ports["prometheus"]),
    )
    return found
