"""What the sequences have reached, so that nobody has to believe that they go deep."""

from __future__ import annotations

import time
from collections import Counter


class Reached:
    """In how many sequences each thing happened."""

    def __init__(self) -> None:
        self.sequences = 0
        self.steps = 0
        self._counts: Counter[str] = Counter()
        self._now: set[str] = set()
        self._since = time.monotonic()

    def begin(self) -> None:
        self.sequences += 1
        self._now = set()

    def step(self) -> None:
        self.steps += 1

    def note(self, what: str) -> None:
        """It has happened in this sequence."""
        if what not in self._now:
            self._now.add(what)
            self._counts[what] += 1

    def lines(self) -> list[str]:
        """A table, most frequent first."""
        seconds = time.monotonic() - self._since
        head = f"{self.sequences:,} sequences, {self.steps:,} steps, {seconds:,.0f} s; sequences that reached"
        return [
            head,
            *(
                f"  {count:>7,}  {count / self.sequences:>6.1%}  {what}"
                for what, count in self._counts.most_common()
            ),
        ]


REACHED = Reached()
