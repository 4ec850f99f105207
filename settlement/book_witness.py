"""The book as a witness: what the store had acknowledged when nobody is left who has seen it.

Gateways and relays remember what they have seen of a store (reservation/fence.py). Where they ended with it,
in a power cut for instance, the book still knows: if it has an order that last changed after the last event
that a run began with, and before the run began, then the store has lost that.
So it has where no run is written down: it was emptied under those who use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from reservation.fence import Run
from reservation.kernel import Store
from reservation.keys import shard_of

LOOK_SECONDS = 0.25
_log = structlog.get_logger(__name__)


class Remembering(Protocol):
    """The book, as it remembers when its orders changed. Every method may raise BookUnavailable."""

    async def campaign_ids(self) -> list[str]: ...

    async def changed_between(self, campaigns: Sequence[str], after_ms: int, before_ms: int) -> bool: ...


class BookWitness:
    """Looks at every new run of the store, and fences it if the book has more."""

    def __init__(self, store: Store, book: Remembering) -> None:
        self._store = store
        self._book = book
        self._looked_at: dict[int, Run] = {}

    async def look(self) -> int:
        """How many shards have lost something. Raises StoreUnavailable, BookUnavailable: then look again."""
        runs = await self._store.runs()
        new = {shard: run for shard, run in enumerate(runs) if run != self._looked_at.get(shard)}
        if not new:
            return 0
        campaigns = await self._book.campaign_ids()
        lost = 0
        for shard, run in new.items():
            own = [one for one in campaigns if shard_of(one) == shard]
            reason = ""
            if own and not run.epoch:  # whoever connects writes a run down, so this one is gone
                reason = f"shard {shard} was emptied while the store ran, and the book has campaigns in it"
            elif own and await self._book.changed_between(own, run.base_ms, run.began_at_ms):
                reason = f"shard {shard} has events up to {run.base_ms} ms, and the book has later ones"
            if reason:
                _log.error("store_fenced", reason=reason, run_id=run.run_id)
                await self._store.fence(reason)
                lost += 1
            self._looked_at[shard] = run
        return lost
