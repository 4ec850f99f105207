"""Which pipe a command goes to: that of the server that keeps its shard.

One server keeps all shards, and then all of this is one look into a list. On a cluster a command may come to
a node that does not keep its shard, or is about to give it away. The node says so instead of carrying it out,
so it is sent on to where it belongs, whatever it does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, ConnectionError, MovedError, ResponseError
from redis.exceptions import TimeoutError as NoReply

from reservation.cluster import Cluster
from reservation.keys import ALL_SHARDS, SHARDS, ShardKeys
from reservation.observer import NOBODY, Failure, Observer
from reservation.outcomes import StoreUnavailable
from reservation.pipe import Enter, Pipe, Waiting, unable
from reservation.redis_url import Node
from reservation.replicas import NO_REPLICAS, Replicas

HOPS_MAX = 5
"""How often a command is sent on, or once more. Then who asked is told that the store is away."""
AGAIN_SECONDS = 0.05, 0.15
"""Until, at random, a command is sent again whose shard is half here and half there."""
T = TypeVar("T")


class Pipes:
    """A pipe for each server."""

    def __init__(
        self,
        servers: Redis | Cluster,
        enter: Enter | None = None,
        *,
        replicas: Replicas = NO_REPLICAS,
        observer: Observer = NOBODY,
    ) -> None:
        self._enter = enter
        self._observer = observer
        self._replicas = replicas
        self._cluster = servers if isinstance(servers, Cluster) else None
        self._by_node: dict[Node, Pipe] = {}
        self._of: list[Pipe] = []
        if isinstance(servers, Cluster):
            servers.tell(self._share_out)
            self._share_out()
        else:
            self._of = [Pipe(servers, enter, replicas=replicas, observer=observer)] * SHARDS
            self.all: tuple[Pipe, ...] = (self._of[0],)
            """Those of servers that keep a shard."""

    def of(self, shard: ShardKeys) -> Pipe:
        """Where commands go that are about this shard."""
        return self._of[shard.number]

    @property
    def one(self) -> Pipe | None:
        """The only one, where one server keeps everything."""
        return self._of[0] if self._cluster is None else None

    async def each(self, command: Callable[[ShardKeys], Sequence[Any]]) -> list[Any]:
        """The replies to a command for every shard, in their order. Raises StoreUnavailable."""
        return await together(self.of(shard).call(*command(shard)) for shard in ALL_SHARDS)

    async def apart(
        self,
        shard: ShardKeys,
        work: Callable[[Redis], Awaitable[T]],
        *,
        name: str | None = None,
        reads: bool = False,
    ) -> T:
        """What `work` does on connections of its own to the server of this shard. Raises StoreUnavailable.

        It is begun again where the shard turns out to be kept by another. And if it only reads, where a
        connection was lost: one that lay idle may have gone without a word while the server was away.
        How long it takes is observed under its name; what waits for something to happen has none.
        """
        started = time.monotonic()
        try:
            found = await self._apart(shard, work, reads=reads)
        except Exception as error:
            if unable(error):
                self._observer.failed(_failure(error), 1)
                raise StoreUnavailable(str(error)) from error
            if isinstance(error, StoreUnavailable):
                self._observer.failed(Failure.AWAY, 1)
            raise
        if name is not None:
            self._observer.took(name, time.monotonic() - started)
        return found

    async def _apart(self, shard: ShardKeys, work: Callable[[Redis], Awaitable[T]], *, reads: bool) -> T:
        try:
            return await work(self._known(shard))
        except MovedError:
            if self._cluster is None:
                raise
            await self._cluster.learn()
        except ConnectionError:
            if not reads:
                raise
            # Where one was gone, the others that lay idle are too: none of them is to be the next.
            await self._known(shard).connection_pool.disconnect(inuse_connections=False)
        return await work(self._known(shard))

    def redirect(self, pipe: Pipe, waiting: Waiting, error: Exception) -> bool:
        cluster = self._cluster
        kind, _, rest = str(error).partition(" ")
        if cluster is None or kind not in ("MOVED", "ASK", "TRYAGAIN") or waiting.hops >= HOPS_MAX:
            return False
        waiting.hops += 1
        if kind == "TRYAGAIN":
            again = (waiting.home or pipe).put
            asyncio.get_running_loop().call_later(random.uniform(*AGAIN_SECONDS), again, waiting)  # noqa: S311
            return True
        slot, _, address = rest.partition(" ")
        host, _, port = address.rpartition(":")
        asked: str = pipe.client.connection_pool.connection_kwargs["host"]
        node = host or asked, int(port)
        if kind == "MOVED":
            cluster.moved(int(slot), node)
            waiting.home = None
        else:
            waiting.home = waiting.home or pipe
            self._at(node).put(_Asking())  # goes right before it, and holds for it alone
        self._at(node).put(waiting)
        return True

    def trouble(self) -> None:
        if self._cluster is not None:
            self._cluster.look()

    def _known(self, shard: ShardKeys) -> Redis:
        pipe = self.of(shard)
        if pipe.away is not None:
            pipe.try_again()
            raise StoreUnavailable(pipe.away)
        return pipe.client

    def _share_out(self) -> None:
        assert self._cluster is not None  # noqa: S101  (it is who calls)
        before, self._of = self._of, [self._at(node) for node in self._cluster.owners]
        self.all = tuple(set(self._of))
        # Whoever has a shard now that they had not may have an older copy of it: the fence has to look.
        for pipe in {now for had, now in zip(before, self._of, strict=False) if now is not had}:
            pipe.renew()

    def _at(self, node: Node) -> Pipe:
        assert self._cluster is not None  # noqa: S101  (there are nodes)
        found = self._by_node.get(node)
        if found is None:
            found = self._by_node[node] = Pipe(
                self._cluster.client(node),
                self._enter,
                self,
                replicas=self._replicas,
                observer=self._observer,
            )
        return found


class _Asking(Waiting):
    """Has a node take a command of a shard that is on its way to it."""

    name = "asking"

    @property
    def asked(self) -> int:
        return 0

    def command(self) -> Sequence[Any]:
        return ("ASKING",)

    def take(self, reply: Any) -> None:
        """The reply to what comes after it says it all."""


def _failure(error: Exception) -> Failure:
    if isinstance(error, NoReply):
        return Failure.LATE
    return Failure.UNABLE if isinstance(error, ResponseError | BusyLoadingError) else Failure.LOST


async def together(asked: Iterable[Awaitable[T]]) -> list[T]:
    """All replies. What is asked at once is one round trip for each server."""
    return await asyncio.gather(*asked)
