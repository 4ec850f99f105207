"""Where everything lies in Redis.

A campaign belongs to one of SHARDS shards, and every key of a shard carries the shard's hash tag.
So all keys that one script touches are in one cluster slot, and the things that must be looked
through as a whole (deadlines, outbox, changed campaigns) are a few keys, however many campaigns
there are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

SHARDS = 16
"""Fixed for the life of a deployment: a campaign's shard is read off its id."""


class ShardKeys(NamedTuple):
    deadlines: str  # sorted set: reservation id by deadline, ms
    index: str  # hash: user -> the newest reservation ids, newest first
    campaigns: str  # sorted set: campaign by the number of its last change
    changes: str  # counter: changes to campaigns
    outbox: str  # stream: events on their way to the book
    dead: str  # stream: events that the book refused, where there is no broker


class CampaignKeys(NamedTuple):
    campaign: str  # hash: revision, status, document, changed_at
    used: str  # hash: counter -> used
    caps: str  # hash: counter -> cap
    tally: str  # hash: state/sku -> units
    reservations: str  # hash: digest -> packed record
    shard: ShardKeys

    @property
    def for_move(self) -> tuple[str, ...]:
        """KEYS of move.lua."""
        shard = self.shard
        return (
            self.campaign,
            self.used,
            self.caps,
            self.tally,
            self.reservations,
            shard.deadlines,
            shard.index,
            shard.outbox,
        )

    @property
    def for_configure(self) -> tuple[str, ...]:
        """KEYS of configure.lua."""
        shard = self.shard
        return (self.campaign, self.used, self.caps, shard.campaigns, shard.changes, shard.outbox)


def shard_of(campaign: str) -> int:
    return crc32(campaign.encode()) % SHARDS


@lru_cache(maxsize=SHARDS)
def shard_keys(shard: int) -> ShardKeys:
    return ShardKeys(*(f"doorbuster:{{{shard}}}:{name}" for name in ShardKeys._fields))


@lru_cache(maxsize=16_384)
def campaign_keys(campaign: str) -> CampaignKeys:
    shard = shard_of(campaign)
    names = CampaignKeys._fields[:-1]
    return CampaignKeys(
        *(f"doorbuster:{{{shard}}}:{campaign}:{name}" for name in names), shard_keys(shard)
    )


ALL_SHARDS = tuple(shard_keys(shard) for shard in range(SHARDS))
