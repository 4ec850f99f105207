"""The stack under test: real servers, and every role a process of its own."""

from __future__ import annotations

import asyncio
import base64
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from redis.asyncio import Redis

from doorbuster.settings import Settings
from doorbuster.stack import reserved_port
from loadtests.bench.servers import directory, free_port
from loadtests.faults.disk import small_disk
from loadtests.faults.groups import Guarded, Nodes, One
from loadtests.faults.processes import Process, listens
from loadtests.faults.provider import Provider
from loadtests.faults.proxy import Proxy
from loadtests.faults.servers import PostgresPair, PostgresServer, RabbitNode, RedisServer, epmd

_GROUPS = {"one": One, "sentinels": Guarded, "cluster": Nodes}
GATEWAYS = ("gateway-1", "gateway-2")
BOOK = "book"
ROLES = (*GATEWAYS, "relay", "worker", "sweeper")
JWT_SECRET = "a secret that only the fault matrix knows, 32+"  # noqa: S105
SERVICE_KEY = "dbk_service-key-of-the-fault-matrix"
PSP_SECRET = "whsec_" + base64.b64encode(b"what the provider of the matrix signs with").decode()
NOTIFY_SECRET = "whsec_" + base64.b64encode(b"what the merchant is told is signed with").decode()


@dataclass(frozen=True, slots=True)
class Setting:
    """How a stack is set up. Faults with the same setting share one."""

    fsync: str = "always"
    proxies: frozenset[str] = frozenset()
    """Between the roles and redis, rabbit, postgres, or between shoppers and the gateway."""
    store: str = "one"
    """One Redis; or `sentinels`, with a master and a replica; or a `cluster` of three."""
    replicas: int = 0
    """As many must have what is acknowledged."""
    brokers: int = 1
    """RabbitMQ nodes: 1, or 3 that are a cluster."""
    alone: bool = False
    """Each round has a stack of its own: what has to be brought back is then what was sold in it."""
    standby: bool = False
    """PostgreSQL has a standby, which follows asynchronously."""
    own_network: bool = False
    """The kernel may lose packets: the matrix plays in a network of its own."""
    disk_mb: int = 0
    """The size of a disk of its own for Redis; 0 for none."""


class Servers:
    """What takes long to start and is shared by all stacks: the broker and the database."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.postgres = PostgresServer(home)
        self.names, epmd_port = epmd(home)
        self.rabbit = RabbitNode(home, self.names, epmd_port)
        self._epmd_port = epmd_port
        self._cluster: list[RabbitNode] = []
        self._books = count(1)

    async def start(self) -> None:
        await self.names.start()
        self.rabbit.begin()
        await self.postgres.start()
        await asyncio.to_thread(self.postgres.prepare)
        await self.rabbit.wait_ready()

    async def brokers(self, count: int) -> list[RabbitNode]:
        """So many RabbitMQ nodes. The cluster is made when it is first asked for."""
        if count == 1:
            return [self.rabbit]
        if not self._cluster:
            self._cluster = [
                RabbitNode(self.home, self.names, self._epmd_port, f"rabbit-{n}") for n in range(count)
            ]
            for node in self._cluster:
                node.begin()
            for node in self._cluster:
                await node.wait_ready()
            first = self._cluster[0]
            for node in self._cluster[1:]:
                await asyncio.to_thread(node.join, first)
        return self._cluster

    async def stop(self) -> None:
        for node in self._cluster:
            await node.kill()
        await self.rabbit.stop()
        await self.names.stop()
        await self.postgres.kill(signal.SIGINT)

    async def new_book(self) -> str:
        """The name of a database with an empty book in it."""
        name = f"book_{next(self._books)}"
        await asyncio.to_thread(self.postgres.new_book, name)
        return name


@dataclass(slots=True)
class Stack:
    """A running stack."""

    setting: Setting
    servers: Servers
    home: Path
    group: One
    """The Redis servers."""
    brokers: list[RabbitNode]
    store: Redis
    """A client of ours of the first of them, which no proxy is in the way of."""
    provider: Provider
    port: int
    """Of the gateways, which share it."""
    shop_port: int
    """Where shoppers go: the same, or a proxy's."""
    pair: PostgresPair | None
    """Where PostgreSQL has a standby."""
    book_dsn: str
    """The one that takes writes."""
    settings: Settings
    """As operators reach it: no proxy in the way."""
    environment: Mapping[str, str]
    """Of the roles."""
    proxies: dict[str, Proxy] = field(default_factory=dict)
    roles: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.shop_port}"

    @property
    def redis(self) -> RedisServer:
        return self.group.redis

    @property
    def postgres(self) -> PostgresServer:
        return self.servers.postgres

    @property
    def rabbit(self) -> RabbitNode:
        return self.brokers[0]

    async def launch(
        self,
        name: str,
        *,
        dies_at: tuple[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a role, ready when this returns. `dies_at`: a point and a number of calls; see dying.py."""
        role = name.partition("-")[0]
        command = [sys.executable, "-m", "doorbuster"]
        if dies_at is not None:
            command = [sys.executable, "-m", "loadtests.faults.dying", dies_at[0], str(dies_at[1])]
        command.append(role)
        ready = lambda pid: True  # noqa: E731
        if role == "gateway":
            command += ["--port", str(self.port)]
            ready = lambda pid: listens(pid, self.port)  # noqa: E731
        given = {**self.environment, **(environment or {})}
        process = Process(name, command, self.home, environment=given, ready=ready)
        self.roles[name] = process
        await process.start()

    async def relaunch(self, name: str) -> None:
        """Stop a role as an operator would, and start it again."""
        await self.roles[name].stop()
        await self.launch(name)

    async def all_up(self) -> None:
        """Start whatever does not run; let go on what was stopped."""
        shared = (self.servers.names, self.servers.postgres, *self.brokers)
        for process in (*shared, *self.group.members, *self.group.sentinels):
            process.send(signal.SIGCONT)
            if not process.running:
                await process.start()
        for role in self.roles.values():
            role.send(signal.SIGCONT)
        await asyncio.gather(*(self.launch(name) for name in ROLES if not self._runs(name)))

    def _runs(self, name: str) -> bool:
        return name in self.roles and self.roles[name].running

    async def stop_roles(self, names: Iterable[str] = ROLES) -> None:
        await asyncio.gather(*(self.roles[name].stop() for name in names if name in self.roles))


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    with directory() as home:
        found = Servers(home)
        try:
            await found.start()
            yield found
        finally:
            await found.stop()


@asynccontextmanager
async def stack(servers: Servers, setting: Setting, seed: str) -> AsyncIterator[Stack]:
    """A stack on a Redis and a book of its own, and on the servers that all share."""
    async with AsyncExitStack() as closing:
        home = closing.enter_context(directory())
        if setting.disk_mb:
            closing.enter_context(small_disk(home / "disk", setting.disk_mb))
        group = _GROUPS[setting.store](home / "disk" if setting.disk_mb else home, setting.fsync)
        redis = group.redis
        for process in (*group.members, *group.sentinels):
            process.log = home / f"{process.name}.log"  # it is to be able to say that its disk is full
            closing.push_async_callback(process.kill)
        await group.start()
        store = Redis.from_url(redis.url)
        closing.push_async_callback(store.aclose)
        port = closing.enter_context(reserved_port("127.0.0.1", 0))
        provider = Provider(PSP_SECRET, random.Random(seed))
        closing.push_async_callback(provider.close)
        await provider.open(f"http://127.0.0.1:{port}")
        pair = None
        if setting.standby:
            pair = PostgresPair(home)
            closing.push_async_callback(pair.stop)
            await pair.start()
            await asyncio.to_thread(pair.primary.new_book, BOOK)
            dsn = pair.dsn(BOOK)
        else:
            database = await servers.new_book()
            dsn = servers.postgres.dsn(database)
        brokers = await servers.brokers(setting.brokers)
        targets = {
            "redis": redis.port,
            "rabbit": servers.rabbit.port,
            "postgres": servers.postgres.port,
            "gateway": port,
        }
        proxies = {
            name: Proxy(("127.0.0.1", targets[name]), ("127.0.0.1", free_port()), seed)
            for name in setting.proxies
        }
        for proxy in proxies.values():
            await proxy.start()
            closing.push_async_callback(proxy.close)
        direct = Settings(
            redis_url=group.url,
            redis_replicas=setting.replicas,
            postgres_dsn=dsn,
            amqp_url=",".join(broker.url for broker in brokers),
            jwt_secret=JWT_SECRET,
            service_key=SERVICE_KEY,
            psp_secret=PSP_SECRET,
            notify_secret=NOTIFY_SECRET,
            refund_url=provider.refund_url,
            notify_url=provider.notify_url,
            public_url=f"http://127.0.0.1:{port}",
        )
        through: dict[str, str] = {}
        if "redis" in proxies:
            through["redis_url"] = f"redis://127.0.0.1:{proxies['redis'].at[1]}/0"
        if "rabbit" in proxies:
            through["amqp_url"] = f"amqp://guest:guest@127.0.0.1:{proxies['rabbit'].at[1]}/"
        if "postgres" in proxies:
            port_of_book = proxies["postgres"].at[1]
            through["postgres_dsn"] = f"postgresql://postgres@127.0.0.1:{port_of_book}/{database}"
        found = Stack(
            setting,
            servers,
            home,
            group,
            brokers,
            store,
            provider,
            port,
            proxies["gateway"].at[1] if "gateway" in proxies else port,
            pair,
            f"{dsn}&target_session_attrs=read-write",
            direct,
            {**direct.model_copy(update=through).environment(), "PYTHONUNBUFFERED": "1"},
            proxies,
        )
        closing.push_async_callback(found.stop_roles)
        await found.all_up()
        yield found
