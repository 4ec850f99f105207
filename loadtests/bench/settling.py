"""All that is between an accepted reservation and its row, with nothing in it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import aio_pika
from prometheus_client.parser import text_string_to_metric_families

from doorbuster.settings import Settings
from loadtests.bench.cpu import Cores, cpu_seconds, pinned
from loadtests.bench.rabbit import rabbit_server
from loadtests.bench.servers import (
    Server,
    book_server,
    directory,
    free_port,
    listens,
    redis_server,
    running,
)
from settlement.rabbit import DEAD, EVENTS

RELAY, WORKER = "relay", "worker"
ROLES = (WORKER, WORKER, RELAY)
"""The relay last: it begins at once, and the workers are there."""
SETTLED = "doorbuster_settled_events_total"
LAG = "doorbuster_settlement_lag_seconds_bucket"
ANSWER_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Settling:
    """Servers that run, and the relay and workers once they are started."""

    home: Path
    cores: Cores
    redis_port: int
    book_dsn: str
    amqp_url: str
    pids: dict[str, list[int]]
    workers: list[Server] = field(default_factory=list)
    """Their ports are where their metrics are."""

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    def start(self, until: ExitStack) -> None:
        """Start relay and workers. They have the gateway's core: while a backlog is drained, that is idle."""
        settings = Settings(
            redis_url=self.redis_url, postgres_dsn=self.book_dsn, amqp_url=self.amqp_url
        ).environment()
        for number, role in enumerate(ROLES):
            port = free_port()
            ready = partial(listens, port)
            command = [sys.executable, "-m", "doorbuster", role, "--metrics-port", str(port)]
            pid = until.enter_context(
                running(
                    f"{role}-{number}",
                    pinned(self.cores.server, *command),
                    self.home,
                    ready,
                    environment=settings,
                )
            )
            self.pids.setdefault(role, []).append(pid)
            if role == WORKER:
                self.workers.append(Server(port, pid))

    def cpu_seconds(self) -> dict[str, float]:
        """What each part has used so far."""
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self.pids.items()}

    def settled(self) -> float:
        """New reservations that the workers have settled so far."""
        return sum(count for labels, count in self._told(SETTLED) if labels["type"] == "reserved")

    def lags(self) -> dict[float, float]:
        """By seconds: how many were settled no later than that."""
        below: dict[float, float] = {}
        for labels, count in self._told(LAG):
            bound = float(labels["le"])
            below[bound] = below.get(bound, 0.0) + count
        return below

    def _told(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """What the workers' metrics say."""
        for worker in self.workers:
            with urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=ANSWER_SECONDS_MAX) as answer:
                families = text_string_to_metric_families(answer.read().decode())
            yield from (
                (one.labels, one.value) for family in families for one in family.samples if one.name == name
            )


@contextmanager
def broker_server(cores: Cores) -> Iterator[Server]:
    """RabbitMQ, on the gateway's core. It takes longest to start, so there is one for all rounds."""
    with directory() as home, rabbit_server(home, cores.server) as broker:
        yield broker


@contextmanager
def settling(cores: Cores, broker: Server) -> Iterator[Settling]:
    """Redis and PostgreSQL share a core, as in the other parts. In the broker there is nothing."""
    amqp_url = f"amqp://guest:guest@127.0.0.1:{broker.port}/"
    asyncio.run(_forget_queues(amqp_url))
    with (
        directory() as home,
        redis_server(home, cores.rest, "everysec") as store,
        book_server(home, cores.rest) as book_dsn,
    ):
        postmaster = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
        yield Settling(
            home,
            cores,
            store.port,
            book_dsn,
            amqp_url,
            {"Redis": [store.pid], "PostgreSQL": [postmaster], "RabbitMQ": [broker.pid]},
        )


async def _forget_queues(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        await channel.queue_delete(EVENTS)
        await channel.queue_delete(DEAD)
