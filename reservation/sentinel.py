"""The master that sentinels name, and connections to it and to nobody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakSet

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError, RedisError

from reservation.redis_url import Node, Sentinels
from reservation.tasks import end

ASK_SECONDS_MAX = 0.5
"""For a sentinel's answer."""
LOOK_SECONDS = 1.0
"""From one look whether there is another master to the next; a little more or less."""


class Named(NamedTuple):
    """What a sentinel says. Of two that differ, the one of the later failover is right."""

    epoch: int
    address: Node
    down: bool
    """A majority of the sentinels does not reach it, and none has taken its place yet."""


class Masters:
    """Asks the sentinels, and leaves a master that has been replaced."""

    def __init__(self, service: str, sentinels: Sequence[Redis]) -> None:
        self._service = service
        self._sentinels = sentinels
        self.connections: WeakSet[Connection] = WeakSet()

    async def address(self) -> Node:
        """Where the master is now. Raises redis-py's ConnectionError."""
        asked = {asyncio.create_task(self._ask(sentinel)) for sentinel in self._sentinels}
        found: list[Named] = []
        try:
            # A majority has heard of the last failover; one sentinel that was cut off may not have.
            for answer in asyncio.as_completed(asked, timeout=ASK_SECONDS_MAX):
                named = await answer
                if named is not None:
                    found.append(named)
                if len(found) > len(asked) // 2:
                    break
        except TimeoutError:
            pass
        finally:
            await end(*asked)
        if not found:
            raise ConnectionError(f"no sentinel knows a master of {self._service}")
        latest = max(found)
        if latest.down:
            raise ConnectionError(f"the sentinels say that the master of {self._service} is down")
        return latest.address

    async def follow(self) -> None:
        """For ever: leave what is no longer the master."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                address = await self.address()
            except ConnectionError:
                continue  # nobody has taken its place
            for connection in list(self.connections):
                if connection.is_connected and (connection.host, connection.port) != address:
                    await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        for sentinel in self._sentinels:
            await sentinel.aclose()

    async def _ask(self, sentinel: Redis) -> Named | None:
        try:
            said = await sentinel.execute_command(  # type: ignore[no-untyped-call]
                "SENTINEL MASTER", self._service
            )
        except (RedisError, OSError, RuntimeError):
            return None
        fields = {_text(name): _text(value) for name, value in dict(said).items()}
        address = fields["ip"], int(fields["port"])
        return Named(int(fields["config-epoch"]), address, "o_down" in fields["flags"])


class _MasterConnection(Connection):
    """A connection to whom the sentinels name when it is made."""

    def __init__(self, *, masters: Masters, **options: Any) -> None:
        super().__init__(**options)
        self._masters = masters
        masters.connections.add(self)

    async def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = await self._masters.address()
        await super().connect()  # type: ignore[no-untyped-call]


class _MasterTlsConnection(_MasterConnection, SSLConnection):
    """The same, with TLS."""


def connect_to_master(named: Sentinels, options: dict[str, Any]) -> tuple[Redis, Masters]:
    """A client of the master, whoever that is. `options` are for every pool."""
    short = options | {"socket_connect_timeout": ASK_SECONDS_MAX, "socket_timeout": ASK_SECONDS_MAX}
    sentinels = [
        Redis.from_pool(BlockingConnectionPool(host=host, port=port, **{**short, **named.sentinel_options}))
        for host, port in named.nodes
    ]
    masters = Masters(named.service, sentinels)
    own = {**options, **named.options}
    tls = own.pop("connection_class", None) is SSLConnection
    kind = _MasterTlsConnection if tls else _MasterConnection
    return Redis.from_pool(BlockingConnectionPool(connection_class=kind, masters=masters, **own)), masters


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
