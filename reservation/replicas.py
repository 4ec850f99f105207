"""Who must have a change before it is acknowledged, beside the server that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many, and how safely."""

    count: int = 0
    on_disk: bool = False
    """Whether they, and the server itself, must have it on disk (WAITAOF) and not in memory only."""

    def waits(self, ms_max: int) -> list[tuple[Any, ...]]:
        """Commands that are answered when all that their connection has written is there; each after so long.

        None, where no replica must have anything.
        """
        if not self.count:
            return []
        waits: list[tuple[Any, ...]] = [("WAIT", self.count, ms_max)]
        if self.on_disk:
            # A replica that is asked what is on its disk says what was there before, and more only once a
            # second. So it is asked twice: when it has answered WAIT, it writes, and then it can say so.
            waits.append(("WAITAOF", 1, self.count, ms_max))
        return waits

    def lacking(self, replies: Sequence[Any]) -> str:
        """What `waits` were answered, if it is too little; else nothing."""
        for reply in replies:
            if isinstance(reply, Exception):
                return str(reply)
        have, *disks = replies
        if have < self.count:
            return f"{have} of {self.count} replicas have it"
        for here, there in disks:
            if not here:
                return "it is not on the disk of the server itself"
            if there < self.count:
                return f"{there} of {self.count} replicas have it on disk"
        return ""


NO_REPLICAS = Replicas()
