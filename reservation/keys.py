"""Where everything lies in Redis.

A campaign belongs to one of SHARDS shards, and every key of a shard carries the shard's hash tag.
So all keys that one script touches are in one cluster slot, and the things that must be looked
through as a whole (deadlines, outbox, changed campaigns) are a few keys, however many campaigns
there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from zlib import crc32

SHARDS = 16
"""Fixed for the life of a deployment: a campaign's shard is read off its id."""


@dataclass(frozen=True)
class ShardKeys:
    """The keys that the campaigns of a shard share."""

    prefix: str

    @cached_property
    def deadlines(self) -> str:
        """Sorted set: reservation id by deadline, ms."""
        return f"{self.prefix}:deadlines"

    @cached_property
    def index(self) -> str:
        """Hash: user -> the newest reservation ids, newest first."""
        return f"{self.prefix}:index"

    @cached_property
    def campaigns(self) -> str:
        """Sorted set: campaign by the number of its last change."""
        return f"{self.prefix}:campaigns"

    @cached_property
    def changes(self) -> str:
        """Counter: changes to campaigns."""
        return f"{self.prefix}:changes"

    @cached_property
    def outbox(self) -> str:
        """Stream: events on their way to the book."""
        return f"{self.prefix}:outbox"

    @cached_property
    def dead(self) -> str:
        """Stream: events that the book refused, where there is no broker."""
        return f"{self.prefix}:dead"


@dataclass(frozen=True)
class CampaignKeys:
    """The keys of one campaign."""

    prefix: str
    shard: ShardKeys

    @cached_property
    def campaign(self) -> str:
        """Hash: revision, status, document, changed_at."""
        return f"{self.prefix}:campaign"

    @cached_property
    def used(self) -> str:
        """Hash: counter -> used."""
        return f"{self.prefix}:used"

    @cached_property
    def caps(self) -> str:
        """Hash: counter -> cap."""
        return f"{self.prefix}:caps"

    @cached_property
    def tally(self) -> str:
        """Hash: state/sku -> units."""
        return f"{self.prefix}:tally"

    @cached_property
    def reservations(self) -> str:
        """Hash: digest -> packed record."""
        return f"{self.prefix}:reservations"

    @cached_property
    def for_move(self) -> tuple[str, ...]:
        """KEYS of move.lua, in its order."""
        return self._named("campaign used caps tally reservations deadlines index outbox")

    @cached_property
    def for_configure(self) -> tuple[str, ...]:
        """KEYS of configure.lua, in its order."""
        return self._named("campaign used caps campaigns changes outbox")

    def _named(self, names: str) -> tuple[str, ...]:
        return tuple(getattr(self if hasattr(self, name) else self.shard, name) for name in names.split())


def shard_of(campaign: str) -> int:
    """The shard that a campaign belongs to."""
    return crc32(campaign.encode()) % SHARDS


@lru_cache(maxsize=SHARDS)
def shard_keys(shard: int) -> ShardKeys:
    return ShardKeys(f"doorbuster:{{{shard}}}")


@lru_cache(maxsize=16_384)
def campaign_keys(campaign: str) -> CampaignKeys:
    shard = shard_keys(shard_of(campaign))
    return CampaignKeys(f"{shard.prefix}:{campaign}", shard)


ALL_SHARDS = tuple(shard_keys(shard) for shard in range(SHARDS))
