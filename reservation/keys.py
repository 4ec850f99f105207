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
    number: int

    @cached_property
    def deadlines(self) -> str:
        """Sorted set: reservation id by deadline, ms; but for those that are in `holds`."""
        return f"{self.prefix}:deadlines"

    @cached_property
    def hold_times(self) -> str:
        """Set: every hold, ms, that there has been a `holds` for."""
        return f"{self.prefix}:hold_times"

    def holds(self, hold_ms: int) -> str:
        """Stream: campaign -> digests, in the order in which they were made, all held for so long.

        One that something has happened to stays until its time has come, and counts no more.
        """
        return f"{self.prefix}:holds:{hold_ms}"

    @cached_property
    def users(self) -> str:
        """Hash: user -> their newest reservations and their own counters, by campaign; packed."""
        return f"{self.prefix}:users"

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
    def unsettled(self) -> str:
        """Counter: events in the outbox, an entry of which may hold many."""
        return f"{self.prefix}:unsettled"

    @cached_property
    def run(self) -> str:
        """Hash: run_id of the server process, epoch, base, began_at; see lua/enter.lua."""
        return f"{self.prefix}:run"

    @cached_property
    def fence(self) -> str:
        """String: why the shard takes nothing; there only while it does."""
        return f"{self.prefix}:fence"

    @cached_property
    def missed(self) -> str:
        """Set: reservation/version, of which somebody was told before the store lost its last writes."""
        return f"{self.prefix}:missed"

    @cached_property
    def for_enter(self) -> tuple[str, ...]:
        """KEYS of enter.lua, in its order."""
        return self.run, self.fence, self.outbox

    @cached_property
    def for_lift(self) -> tuple[str, ...]:
        """KEYS of lift.lua, in its order."""
        return *self.for_enter, self.missed

    @cached_property
    def for_forget(self) -> tuple[str, ...]:
        """KEYS of forget.lua, in its order."""
        return self.outbox, self.unsettled

    @cached_property
    def queues(self) -> str:
        """Set: campaign/sku of every queue that somebody stands in."""
        return f"{self.prefix}:queues"

    @cached_property
    def unfinished(self) -> str:
        """Set: main orders of which something is still to be done."""
        return f"{self.prefix}:unfinished"

    @cached_property
    def noted(self) -> str:
        """Sorted set: campaign by the minute, since the epoch, in which traffic was last noted of it."""
        return f"{self.prefix}:noted"

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
        """Hash: revision, status, document, changed_at; ends_at and final_at of its ranking; how many are
        waiting in its queues, and how many tickets they were given; trail_until; how often its counters
        were adjusted."""
        return f"{self.prefix}:campaign"

    @cached_property
    def used(self) -> str:
        """Hash: counter -> used, but for the counters that are a user's own."""
        return f"{self.prefix}:used"

    @cached_property
    def caps(self) -> str:
        """Hash: counter -> cap."""
        return f"{self.prefix}:caps"

    @cached_property
    def tally(self) -> str:
        """Hash: state/sku -> units; waiting/sku -> units that are stood in line for."""
        return f"{self.prefix}:tally"

    @cached_property
    def reservations(self) -> str:
        """Hash: digest -> packed record, short while nothing has happened to it."""
        return f"{self.prefix}:reservations"

    @cached_property
    def trail(self) -> str:
        """Stream: digests of what is made or moved while somebody takes a snapshot: until trail_until, ms."""
        return f"{self.prefix}:trail"

    @cached_property
    def terms(self) -> str:
        """Hash: name -> the packed terms that reservations were made on."""
        return f"{self.prefix}:terms"

    @cached_property
    def ranking(self) -> str:
        """Sorted set: user by what they have spent."""
        return f"{self.prefix}:ranking"

    @cached_property
    def final(self) -> str:
        """Sorted set: the ranking as it was when the campaign ended."""
        return f"{self.prefix}:final"

    @cached_property
    def places(self) -> str:
        """Hash: sku/user -> units wanted, and details."""
        return f"{self.prefix}:places"

    def traffic(self, hour: int) -> str:
        """Hash: minute/what -> how often, in this hour. (Both since the epoch.)"""
        return f"{self.prefix}:traffic:{hour}"

    @cached_property
    def visitors(self) -> str:
        """HyperLogLog: who looked at the campaign."""
        return f"{self.prefix}:visitors"

    @cached_property
    def participants(self) -> str:
        """HyperLogLog: who asked for a reservation."""
        return f"{self.prefix}:participants"

    @cached_property
    def for_configure(self) -> tuple[str, ...]:
        """KEYS of configure.lua, in its order."""
        return self._named("campaign used caps campaigns changes outbox unsettled")

    @cached_property
    def for_snapshot(self) -> tuple[str, ...]:
        """KEYS of snapshot.lua, in its order."""
        return self._named("campaign trail reservations used caps tally users ranking")

    @cached_property
    def for_restore(self) -> tuple[str, ...]:
        """KEYS of restore.lua, in its order."""
        return self._named("campaign used caps tally reservations terms users deadlines ranking trail")

    @cached_property
    def for_restate(self) -> tuple[str, ...]:
        """KEYS of restate.lua, in its order."""
        return self._named("reservations terms outbox unsettled")

    @cached_property
    def for_adjust(self) -> tuple[str, ...]:
        """KEYS of adjust.lua, in its order."""
        return self._named("campaign used tally users ranking")

    @cached_property
    def for_rank(self) -> tuple[str, ...]:
        """KEYS of rank.lua, in its order."""
        return self._named("campaign ranking final")

    @cached_property
    def for_grant(self) -> tuple[str, ...]:
        """KEYS of grant.lua, in its order."""
        return self._named("campaign caps")

    def _named(self, names: str) -> tuple[str, ...]:
        return tuple(getattr(self if hasattr(self, name) else self.shard, name) for name in names.split())


@dataclass(frozen=True)
class OfferKeys(CampaignKeys):
    """The keys of one offer, and of its campaign."""

    sku: str

    @cached_property
    def queue(self) -> str:
        """Sorted set: user by ticket, in the order in which they came."""
        return f"{self.prefix}:queue:{self.sku}"

    def for_reserve(self, hold_ms: int) -> tuple[str, ...]:
        """KEYS of reserve.lua, in its order."""
        before = self._named("campaign used caps tally reservations terms users")
        after = self._named("hold_times deadlines outbox unsettled queue places queues fence trail")
        return (*before, self.shard.holds(hold_ms), *after)

    @cached_property
    def for_move(self) -> tuple[str, ...]:
        """KEYS of move.lua, in its order."""
        return self._named(
            "campaign used caps tally reservations terms users deadlines outbox unsettled queue places"
            " ranking final fence trail"
        )

    @cached_property
    def for_place(self) -> tuple[str, ...]:
        """KEYS of place.lua, in its order."""
        return self._named("campaign used caps tally users places queue queues fence")


@dataclass(frozen=True)
class OrderKeys:
    """The keys of one main order."""

    order_id: str
    shard: ShardKeys

    @cached_property
    def order(self) -> str:
        """Hash: version, body."""
        # No campaign can have such a name, so no key of one is another's.
        return f"{self.shard.prefix}:order/{self.order_id}"

    @cached_property
    def for_order(self) -> tuple[str, ...]:
        """KEYS of order.lua, in its order."""
        shard = self.shard
        return self.order, shard.unfinished, shard.outbox, shard.unsettled, shard.fence


ALL_ORDERS = "doorbuster:{*}:order/*"
"""A pattern of the keys of all main orders: the id is what comes after the slash."""


def shard_of(campaign: str) -> int:
    """The shard that a campaign belongs to."""
    return crc32(campaign.encode()) % SHARDS


@lru_cache(maxsize=SHARDS)
def shard_keys(shard: int) -> ShardKeys:
    return ShardKeys(f"doorbuster:{{{shard}}}", shard)


@lru_cache(maxsize=16_384)
def campaign_keys(campaign: str) -> CampaignKeys:
    shard = shard_keys(shard_of(campaign))
    return CampaignKeys(f"{shard.prefix}:{campaign}", shard)


@lru_cache(maxsize=16_384)
def offer_keys(campaign: str, sku: str) -> OfferKeys:
    keys = campaign_keys(campaign)
    return OfferKeys(keys.prefix, keys.shard, sku)


def order_keys(order_id: str) -> OrderKeys:
    return OrderKeys(order_id, shard_keys(shard_of(order_id)))


ALL_SHARDS = tuple(shard_keys(shard) for shard in range(SHARDS))
