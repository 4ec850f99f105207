"""A Redis Cluster: which of its nodes keeps which shard.

All keys of a shard are in one slot, so all that has to be known is who keeps SHARDS slots. The nodes are
asked about once a second, all at once, and what most of them say holds; a node that does not keep a shard any
more says so itself, when it is asked for something of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from reservation.keys import ALL_SHARDS
from reservation.redis_url import ClusterNodes, Node

ASK_SECONDS_MAX = 0.5
"""For a node's map."""
LOOK_SECONDS = 1.0
"""From one look at the map to the next; a little more or less."""
SLOTS = tuple(key_slot(shard.prefix.encode()) for shard in ALL_SHARDS)
"""By shard."""
_SHARD = {slot: number for number, slot in enumerate(SLOTS)}


class Cluster:
    """Clients of the nodes, by shard."""

    def __init__(self, named: ClusterNodes, options: Mapping[str, Any]) -> None:
        self._seeds = named.nodes
        self._options = {**options, **named.options}
        self._clients: dict[Node, Redis] = {}
        self._told: list[Callable[[], None]] = []
        self._look = asyncio.Event()
        # Until more is known. A node that is asked for what another keeps says who that is.
        self.owners: list[Node] = [named.nodes[0]] * len(ALL_SHARDS)

    def client(self, node: Node) -> Redis:
        found = self._clients.get(node)
        if found is None:
            pool = BlockingConnectionPool(host=node[0], port=node[1], **self._options)
            found = self._clients[node] = Redis.from_pool(pool)
        return found

    def nodes(self) -> set[Node]:
        """Those that keep shards."""
        return set(self.owners)

    def tell(self, changed: Callable[[], None]) -> None:
        """Call this whenever a shard has another owner."""
        self._told.append(changed)

    def moved(self, slot: int, node: Node) -> None:
        """A node has said that this one keeps the slot."""
        owners = list(self.owners)
        if slot in _SHARD:
            owners[_SHARD[slot]] = node
        self._own(owners)
        self.look()

    def look(self) -> None:
        """Something is not as it was: look at the map soon."""
        self._look.set()

    async def learn(self) -> None:
        """Ask who keeps what. Where nobody answers, everything stays as it is known."""
        asked = {*self.owners, *self._seeds}
        maps = [found for found in await asyncio.gather(*map(self._map, asked)) if found]
        if maps:
            self._own([_most(maps, number, owner) for number, owner in enumerate(self.owners)])

    async def follow(self) -> None:
        """For ever: keep up with who keeps what."""
        while True:
            await self.learn()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311
                    await self._look.wait()
            self._look.clear()
            await asyncio.sleep(0.1 * random.random())  # noqa: S311  (many may have been told the same)

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _own(self, owners: list[Node]) -> None:
        if owners != self.owners:
            self.owners = owners
            for changed in self._told:
                changed()

    async def _map(self, node: Node) -> dict[int, Node]:
        """Shard -> node, as this node knows it; nothing if it does not say."""
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX):
                slots = await self.client(node).execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        except (RedisError, OSError, RuntimeError):  # a TimeoutError is an OSError
            return {}
        found: dict[int, Node] = {}
        for first, last, master, *_ in slots:
            host, port = (master[0] or b"").decode() or node[0], int(master[1])
            found |= {shard: (host, port) for slot, shard in _SHARD.items() if first <= slot <= last}
        return found


def _most(maps: list[dict[int, Node]], shard: int, owner: Node) -> Node:
    """Who keeps the shard, as most say. Who is known to keep it stays where nobody says another."""
    said = Counter(found[shard] for found in maps if shard in found)
    return said.most_common(1)[0][0] if said else owner
