"""What a Redis would lose by itself: is it told to keep what it is given?"""

from __future__ import annotations

from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from reservation.outcomes import StoreUnavailable
from reservation.pipe import unable


class Durability(NamedTuple):
    """How a Redis keeps what it has acknowledged."""

    evicts: bool
    """Whether it throws keys away when its memory is full."""
    appends: bool
    """Whether it writes a journal (AOF)."""
    saves: bool
    """Whether it saves snapshots (RDB) from time to time."""
    clustered: bool
    """Whether it is a node of a cluster."""
    fsync: str
    """When the journal is on disk: always, everysec or no; empty where it does not say."""
    tells_disk: bool
    """Whether it can say when something is on disk (WAITAOF)."""

    @property
    def defect(self) -> str:
        """Why reservations are not safe in it; empty if they are."""
        if self.evicts:
            return "evicts keys when its memory is full; set maxmemory-policy noeviction"
        if not self.appends and not self.saves:
            return "does not persist; set appendonly yes"
        return ""

    @property
    def slow_to_disk(self) -> str:
        """Why nobody can wait until something is on its disk; empty if they can."""
        if not self.tells_disk:
            return "has no WAITAOF; Redis 7.2 and Valkey have"
        if not self.appends:
            return "keeps no journal; set appendonly yes"
        if self.fsync not in ("always", ""):
            return f"has appendfsync {self.fsync}, for which every answer would wait; set appendfsync always"
        return ""

    @property
    def loses(self) -> str:
        """What goes with its machine."""
        if not self.appends:
            return "everything since the last snapshot" if self.saves else "everything"
        return {"always": "nothing", "everysec": "the last one or two seconds"}.get(
            self.fsync, "what the system has not written yet"
        )


async def durability(client: Redis) -> Durability:
    """What this Redis says of itself. Raises StoreUnavailable."""
    try:
        info = await client.info()  # all of it: before Redis 7, it is one section or all
        said = await _configuration(client)
        # One word to redis-py, which would make something else of two.
        (waitaof,) = await client.execute_command("COMMAND INFO", "WAITAOF")  # type: ignore[no-untyped-call]
    except (RedisError, OSError) as error:
        if unable(error):
            raise StoreUnavailable(str(error)) from error
        raise
    return Durability(
        evicts=int(info["maxmemory"]) > 0 and info["maxmemory_policy"] != "noeviction",
        appends=bool(int(info["aof_enabled"])),
        saves=bool(said.get("save")),
        clustered=bool(info.get("cluster_enabled", True)),
        fsync=said.get("appendfsync", ""),
        tells_disk=waitaof is not None,
    )


async def _configuration(client: Redis) -> dict[Any, Any]:
    """What a hosted Redis may keep to itself: then only its journal counts."""
    try:
        return {**dict(await client.config_get("save")), **dict(await client.config_get("appendfsync"))}
    except ResponseError as error:
        if unable(error):
            raise
        return {}
