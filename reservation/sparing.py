"""What would be said again and again is said once a second, for all times."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_MIN = 1.0
"""Between two lines of one kind."""


class Sparing:
    """Counts what is left out. `kind` is one of a few: each is remembered for ever."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, tuple[float | None, int]] = {}
        """By kind: when it was last said, and how often it was left out since."""

    def times(self, kind: str) -> int:
        """How many lines the one to be said now stands for, with those left out before; 0 where none is."""
        now = self._clock()
        said_at, left_out = self._since.get(kind, (None, 0))
        if said_at is not None and now - said_at < SECONDS_MIN:
            self._since[kind] = said_at, left_out + 1
            return 0
        self._since[kind] = now, 0
        return left_out + 1
