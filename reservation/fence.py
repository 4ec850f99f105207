"""The fence: a store that has lost what it acknowledged takes nothing until it was reconciled with the book.

A run is one life of a store's process. Between two runs the last writes may be lost: with the machine, by a
replica that lagged behind, by an old copy that came back, or because there were two masters for a while. No
run can tell by itself. Those who talked to the one before can: the outbox gives its entries ever higher ids,
and each process remembers the highest that it was answered or has read. So

1. whoever connects enters first (lua/enter.lua), and a new run writes down what it began with;
2. who has seen more than that, or a later run, fences the store, and its scripts refuse whatever they are
   asked. A new run takes nothing for PROVING_MS, so that those who have something to say come first;
   They also leave what they were acknowledged after that, as far as they remember it;
3. reconciliation brings back what the book has, names what is gone, and lifts the fence (lua/lift.lua).

Where nobody is left who has seen anything, the book is asked (settlement/book_witness.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog
from redis.exceptions import AskError

from reservation.acknowledged import Memory, read_entry_id
from reservation.keys import ALL_SHARDS, ShardKeys
from reservation.pipe import Ask
from reservation.scripts import script

PROVING_MS = 1_000
"""Every process asks the store something every 250 ms at least, so by then it has come back."""
_MISSED_AT_ONCE = 1_000
_log = structlog.get_logger(__name__)


class Run(NamedTuple):
    """One life of a store's process, as one shard has it written down."""

    epoch: int
    """How many runs there have been."""
    run_id: str
    base_ms: int
    base_number: int
    """Both are the last entry that the shard's outbox had been given when the run began."""
    began_at_ms: int

    @property
    def base(self) -> tuple[int, int]:
        return self.base_ms, self.base_number


def read_run(epoch: Any, run_id: bytes, base: bytes, began_at: Any) -> Run:
    """A run, from what the store says of it."""
    return Run(int(epoch), run_id.decode(), *read_entry_id(base), int(began_at))


class Fence:
    """What this process has seen of a store, and what it therefore thinks of a run."""

    def __init__(self) -> None:
        self._seen: dict[str, bytes] = {}
        """By shard: the last entry of its outbox that this process was answered with, or has read."""
        self._memory = Memory()
        self._known: dict[str, Run] = {}

    def saw(self, shard: ShardKeys, entry_id: bytes) -> None:
        """The store has acknowledged this entry. Called in the order in which it did."""
        self._seen[shard.prefix] = entry_id

    def was_acknowledged(
        self, shard: ShardKeys, entry_id: bytes, campaign: str, digests: Sequence[str], version: int
    ) -> None:
        """The same, of reservations that were made or moved by that."""
        self.saw(shard, entry_id)
        self._memory.note(shard, entry_id, campaign, digests, version)

    async def enter(self, ask: Ask) -> None:
        """Find out which run this connection leads to, and fence the store if that has lost something."""
        (server,) = await ask([["INFO", "server"]])
        if isinstance(server, Exception):
            raise server
        run_id, source = _run_id(server), script("enter").source
        entered = await ask(
            [["EVAL", source, 3, *shard.for_enter, run_id, PROVING_MS] for shard in ALL_SHARDS]
        )
        here: dict[ShardKeys, Run] = {}
        doubts: list[str] = []
        doubtful: list[ShardKeys] = []
        for shard, reply in zip(ALL_SHARDS, entered, strict=True):
            if isinstance(reply, AskError):  # MOVED too
                continue  # a shard that another server keeps
            if isinstance(reply, Exception):
                raise reply
            run = here[shard] = read_run(*reply)
            if doubt := self._doubt(shard, run):
                doubts.append(doubt)
                doubtful.append(shard)
        if doubts:
            for reply in await ask([fence_command(shard, doubts[0]) for shard in here]):
                if isinstance(reply, Exception):
                    raise reply  # its memory is full, perhaps: who cannot fence it comes and doubts again
            _log.error("store_fenced", reason=doubts[0], shards=len(here), run_id=run_id)
        self._known |= {shard.prefix: run for shard, run in here.items()}
        for shard in doubtful:
            await self._leave_missed(ask, shard, here[shard].base)

    async def _leave_missed(self, ask: Ask, shard: ShardKeys, base: tuple[int, int]) -> None:
        """Have the store keep, for who reconciles it, what somebody was told of and it may not have."""
        acknowledged = self._memory.since(shard, base)
        for first in range(0, len(acknowledged), _MISSED_AT_ONCE):
            some = acknowledged[first : first + _MISSED_AT_ONCE]
            (reply,) = await ask([["SADD", shard.missed, *map(str, some)]])
            if isinstance(reply, Exception):
                _log.error("missed_not_left", reservations=len(acknowledged) - first, error=str(reply))
                return
        self._memory.forget(shard, base)  # once they are named, a later loss is none of theirs

    def _doubt(self, shard: ShardKeys, run: Run) -> str:
        """Why this run cannot be what it should be; nothing, if it can."""
        known = self._known.get(shard.prefix)
        if known is None or known.run_id == run.run_id:
            return ""
        if run.epoch == known.epoch:
            return f"this is another store than the one that was seen, and also calls itself run {run.epoch}"
        if run.epoch < known.epoch:
            return f"this is run {run.epoch} of the store, and a later one has been seen: run {known.epoch}"
        seen = read_entry_id(self._seen.get(shard.prefix, b"0-0"))
        if seen > run.base:
            return f"the store has events up to {run.base_ms} ms, and acknowledged one at {seen[0]} ms"
        return ""


def fence_command(shard: ShardKeys, reason: str) -> list[str]:
    """What makes a shard refuse whatever it is asked."""
    return ["SET", shard.fence, reason]


def _run_id(server: bytes) -> str:
    """From what INFO says."""
    lines: dict[str, str] = dict(line.partition(":")[::2] for line in server.decode().splitlines())
    return lines["run_id"]
