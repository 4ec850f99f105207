"""Several Redis servers that know of each other: loopback, free ports, stopped by their own pids."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from reservation.cluster import SLOTS
from tests.servers import free_port, wait_until

SLOTS_ALL = 16_384
REPLICATION = "replication"
"""The user that replicas are to their masters, and its password."""
CLUSTER_BUS = 10_000
"""A node's bus is on its port and so many more, unless it is said."""


class Member:
    """One server, that can be killed, stopped for a while, and started again with what it had."""

    def __init__(self, program: Path, home: Path, *options: str, sentinel: bool = False) -> None:
        self.port = free_port()
        self.home = home
        home.mkdir()
        self._command = [str(program)]
        if sentinel:
            self._command += [str(home / "sentinel.conf"), "--sentinel"]
        self._command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(home)]
        if not sentinel:
            self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
            self._command += ["--repl-diskless-sync-delay", "0"]  # nobody else is to follow
        self._command += options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._answers, "Redis answers")

    def call(self, *command: Any) -> Any:
        with redis.Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def scripts_run(self) -> int:
        """How often it was asked to run a script."""
        with redis.Redis(port=self.port) as client:
            asked = client.info("commandstats")
        return sum(asked.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """At once, as if the machine had gone; stopped before, too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return bool(self.call("PING"))
        except redis.exceptions.ConnectionError:
            return False


def catch_up(master: Member, replica: Member) -> None:
    """Return when the replica has all that the master has now."""

    def offset(member: Member, name: str) -> int:
        with redis.Redis(port=member.port) as client:
            return int(client.info("replication")[name])

    written = offset(master, "master_repl_offset")
    wait_until(lambda: offset(replica, "slave_repl_offset") >= written, "the replica has everything")


class Guarded:
    """A master and its replica, and three sentinels that know them as `sale`."""

    def __init__(self, program: Path, home: Path) -> None:
        self.master, self.replica = (Member(program, home / name) for name in ("one", "two"))
        self.sentinels = [Member(program, home / f"sentinel-{n}", sentinel=True) for n in range(3)]
        nodes = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        self.url = f"redis+sentinel://{nodes}/sale/0"

    def start(self) -> None:
        self.master.start()
        self.replica.start()
        self.replica.call("REPLICAOF", "127.0.0.1", self.master.port)
        for sentinel in self.sentinels:
            (sentinel.home / "sentinel.conf").write_text(
                f"sentinel monitor sale 127.0.0.1 {self.master.port} 2\n"
                "sentinel down-after-milliseconds sale 1000\n"
                "sentinel failover-timeout sale 3000\n"
            )
            sentinel.start()
        wait_until(lambda: self.replica.call("ROLE")[3] == "connected", "the replica has caught up")
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), "the sentinels know of each other")

    def catch_up(self) -> None:
        """Return when the replica has all that the master has now."""
        catch_up(self.master, self.replica)

    def named(self) -> int:
        """The port of the master, as a sentinel says."""
        return int(self.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "sale")[1])

    def kill(self) -> None:
        for one in (*self.sentinels, self.master, self.replica):
            one.kill()

    @staticmethod
    def _knows_all(sentinel: Member) -> bool:
        with redis.Redis(port=sentinel.port, decode_responses=True) as client:
            (master,) = client.sentinel_masters().values()
        return master["num-other-sentinels"] == 2 and master["num-slaves"] == 1


class Nodes:
    """A cluster of three masters, which sells on while one of them is away."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program, self._home = program, home
        self.nodes = [self._node(program, home / f"node-{n}") for n in range(3)]
        self._replicas: list[Member] = []
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.nodes)}"

    @staticmethod
    def _node(program: Path, home: Path) -> Member:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        options += ("--cluster-require-full-coverage", "no", "--cluster-port", str(free_port()))
        return Member(program, home, *options)

    def start(self) -> None:
        bounds = [SLOTS_ALL * n // 3 for n in range(4)]
        for n, node in enumerate(self.nodes):
            node.start()
            node.call("CLUSTER", "ADDSLOTSRANGE", bounds[n], bounds[n + 1] - 1)
            node.call("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for node in self.nodes[1:]:
            self._meet(node)
        wait_until(lambda: all(map(self._whole, self.nodes)), "the cluster is whole")

    def add_replica(self, master: Member) -> Member:
        """Of this node; ready to take its place."""
        replica = self._node(self._program, self._home / f"replica-{len(self._replicas)}")
        self._replicas.append(replica)
        master.call("ACL", "SETUSER", REPLICATION, "on", f">{REPLICATION}", "+psync", "+replconf", "+ping")
        replica.start()
        replica.call("CONFIG", "SET", "masteruser", REPLICATION, "masterauth", REPLICATION)
        self._meet(replica)
        name = master.call("CLUSTER", "MYID")
        wait_until(lambda: self._knows(replica, name), "the replica knows its master")
        replica.call("CLUSTER", "REPLICATE", name)
        wait_until(lambda: replica.call("ROLE")[3:4] == ["connected"], "the replica has caught up")
        wait_until(
            lambda: all(self._knows(one, replica.call("CLUSTER", "MYID")) for one in self.nodes),
            "all know the replica",
        )
        return replica

    @staticmethod
    def part(master: Member, replica: Member) -> None:
        """From now on the replica gets nothing any more. What was written before, it has."""
        catch_up(master, replica)
        master.call("ACL", "SETUSER", REPLICATION, "off")
        master.call("CLIENT", "KILL", "TYPE", "replica")
        wait_until(lambda: replica.call("ROLE")[3] != "connected", "the replica is cut off")

    def _meet(self, node: Member) -> None:
        first = self.nodes[0]
        bus = first._command[first._command.index("--cluster-port") + 1]
        node.call("CLUSTER", "MEET", "127.0.0.1", first.port, bus)

    @staticmethod
    def _knows(node: Member, name: str) -> bool:
        known = [line.split() for line in str(node.call("CLUSTER", "NODES")).splitlines()]
        return any(fields[0] == name and "handshake" not in fields[2] for fields in known)

    def owner(self, shard: int) -> Member:
        """The node that keeps a shard."""
        for first, last, (_, port, *_), *_ in self.nodes[0].call("CLUSTER", "SLOTS"):
            if first <= SLOTS[shard] <= last:
                return next(one for one in self.nodes if one.port == port)
        raise LookupError(shard)

    def begin_to_move(self, slot: int, source: Member, target: Member) -> None:
        """From now on, what is not there on the one is to be looked for on the other."""
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.call("CLUSTER", "MYID"))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.call("CLUSTER", "MYID"))

    def move_some(self, slot: int, source: Member, target: Member, count: int = 3) -> int:
        """Move so many keys; how many there were."""
        keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
        return len(keys)

    def copy_of(self, slot: int, source: Member) -> dict[bytes, bytes]:
        """All keys of a slot as they are now, each as DUMP has it."""
        with redis.Redis(port=source.port) as client:
            keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000)
            return {key: client.dump(key) for key in keys}

    def move_copy(self, slot: int, copy: dict[bytes, bytes], source: Member, target: Member) -> None:
        """Give a slot away with what was in it at an earlier time."""
        self.begin_to_move(slot, source, target)
        with redis.Redis(port=target.port) as client:
            for key, value in copy.items():
                client.execute_command("ASKING")
                client.restore(key, 0, value)
        source.call("CLUSTER", "SETSLOT", slot, "STABLE")
        for key in source.call("CLUSTER", "GETKEYSINSLOT", slot, 1_000):
            source.call("DEL", key)
        self.move_rest(slot, source, target)

    def move_rest(self, slot: int, source: Member, target: Member) -> None:
        """Move what is left, and say who keeps it."""
        while self.move_some(slot, source, target):
            pass
        name = target.call("CLUSTER", "MYID")
        for one in (target, source, *self.nodes):
            one.call("CLUSTER", "SETSLOT", slot, "NODE", name)

    def kill(self) -> None:
        for one in (*self.nodes, *self._replicas):
            one.kill()

    def _whole(self, node: Member) -> bool:
        said = str(node.call("CLUSTER", "INFO"))
        slots = node.call("CLUSTER", "SLOTS")
        return "cluster_state:ok" in said and len({port for _, _, (_, port, *_), *_ in slots}) == 3


@contextmanager
def started(servers: Nodes) -> Iterator[None]:
    try:
        servers.start()
        yield
    finally:
        servers.kill()
