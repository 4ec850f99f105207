"""Several Redis servers that know of each other: a master with its replica and sentinels, or a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from doorbuster.embedded import find_redis
from loadtests.bench.servers import free_port
from loadtests.faults.processes import Process, ProcessFailed
from loadtests.faults.servers import RedisServer

NAME = "sale"
"""What the sentinels call the master."""
SLOTS_ALL = 16_384
_SECONDS_MAX = 60.0
_SENTINEL = (
    "sentinel monitor {name} 127.0.0.1 {port} 2\n"
    "sentinel down-after-milliseconds {name} 1000\n"
    "sentinel failover-timeout {name} 3000\n"
)


def call(port: int, *command: Any) -> Any:
    """What a server answers. Raises redis.RedisError."""
    with redis.Redis(port=port, decode_responses=True, socket_timeout=10) as client:
        return client.execute_command(*command)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Raises ProcessFailed. A server that does not answer is a no."""
    deadline = time.monotonic() + _SECONDS_MAX
    while not await asyncio.to_thread(_holds, condition):
        if time.monotonic() > deadline:
            raise ProcessFailed(f"not within {_SECONDS_MAX:g} s: {what}")
        await asyncio.sleep(0.05)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (redis.RedisError, OSError):
        return False


class One:
    """A single server."""

    def __init__(self, home: Path, fsync: str) -> None:
        self.redis = RedisServer(home, fsync)
        self.members = [self.redis]
        self.sentinels: list[Process] = []

    @property
    def url(self) -> str:
        return self.redis.url

    async def start(self) -> None:
        await self.redis.start()


class Guarded(One):
    """A master and its replica, and three sentinels."""

    def __init__(self, home: Path, fsync: str) -> None:
        self.members = [RedisServer(home, fsync, name=name) for name in ("one", "two")]
        self.redis = self.members[0]
        program, _ = find_redis()
        self.ports = [free_port() for _ in range(3)]
        self.sentinels = []
        for port in self.ports:
            configuration = home / f"sentinel-{port}.conf"
            configuration.write_text(_SENTINEL.format(name=NAME, port=self.redis.port))
            command = [str(program), str(configuration), "--sentinel", "--port", str(port)]
            command += ["--bind", "127.0.0.1", "--dir", str(home)]
            ready = lambda pid, port=port: bool(call(port, "PING"))  # noqa: E731
            self.sentinels.append(Process(f"sentinel-{port}", command, home, ready=ready))

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{NAME}/0"

    async def start(self) -> None:
        for member in self.members:
            await member.start()
        await asyncio.to_thread(call, self.members[1].port, "REPLICAOF", "127.0.0.1", self.redis.port)
        for sentinel in self.sentinels:
            sentinel.begin()
        await until(lambda: all(map(self._knows_all, self.ports)), "the sentinels know of each other")

    def master(self) -> RedisServer:
        """As a sentinel says."""
        port = int(call(self.ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])
        return next(one for one in self.members if one.port == port)

    def replica(self) -> RedisServer:
        master = self.master()
        return next(one for one in self.members if one is not master)

    def whole(self) -> bool:
        """Whether the replica follows the master."""
        role = call(self.replica().port, "ROLE")
        return bool(role[0] == "slave" and role[3] == "connected")

    @staticmethod
    def _knows_all(port: int) -> bool:
        with redis.Redis(port=port, decode_responses=True) as client:
            (master,) = client.sentinel_masters().values()
        return bool(master["num-other-sentinels"] == 2 and master["num-slaves"] == 1)


class Nodes(One):
    """A cluster of three masters, which goes on while one of them is away."""

    def __init__(self, home: Path, fsync: str) -> None:
        self.buses = [free_port() for _ in range(3)]
        self.members = [
            RedisServer(
                home,
                fsync,
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-require-full-coverage", "no", "--cluster-port", str(bus)),
                name=f"node-{n}",
            )
            for n, bus in enumerate(self.buses)
        ]
        self.redis = self.members[0]
        self.sentinels = []

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.members)}"

    async def start(self) -> None:
        for member in self.members:
            await member.start()
        await asyncio.to_thread(self._meet)
        await until(lambda: all(map(self._whole, self.members)), "the cluster is whole")

    def owner(self, slot: int) -> RedisServer:
        for first, last, (_, port, *_), *_ in call(self.redis.port, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(one for one in self.members if one.port == port)
        raise LookupError(slot)

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> int:
        """Give a slot to another node, a few keys at a time, in some ten steps; how many there were."""
        call(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", call(source.port, "CLUSTER", "MYID"))
        call(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", call(target.port, "CLUSTER", "MYID"))
        count = 0
        # Main orders are keys of their own, and come while the slot moves: three at a time may never be all.
        some = max(3, call(source.port, "CLUSTER", "COUNTKEYSINSLOT", slot) // 10)
        while keys := call(source.port, "CLUSTER", "GETKEYSINSLOT", slot, some):
            call(source.port, "MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
            count += len(keys)
            time.sleep(0.1)
        name = call(target.port, "CLUSTER", "MYID")
        for one in (target, source, *self.members):
            call(one.port, "CLUSTER", "SETSLOT", slot, "NODE", name)
        return count

    def _meet(self) -> None:
        bounds = [SLOTS_ALL * n // 3 for n in range(4)]
        for n, node in enumerate(self.members):
            call(node.port, "CLUSTER", "ADDSLOTSRANGE", bounds[n], bounds[n + 1] - 1)
            call(node.port, "CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for node in self.members[1:]:
            call(node.port, "CLUSTER", "MEET", "127.0.0.1", self.redis.port, self.buses[0])

    @staticmethod
    def _whole(node: RedisServer) -> bool:
        slots = call(node.port, "CLUSTER", "SLOTS")
        return "cluster_state:ok" in str(call(node.port, "CLUSTER", "INFO")) and (
            len({port for _, _, (_, port, *_), *_ in slots}) == 3
        )
