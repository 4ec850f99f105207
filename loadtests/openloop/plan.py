"""What a run is to do, and its limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.openloop.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """One run against one address.

    It takes no longer than the schedule, `patience_s` and `answer_s` together, and a moment for closing.
    """

    host: str
    port: int
    schedule: Schedule
    warm_up_s: float = 0.0
    """Arrivals of the schedule's first seconds are sent, and not recorded."""
    connections_min: int = 0
    """Opened before the clock starts. Others are opened when an arrival finds none free."""
    connections_max: int = 512
    patience_s: float = 2.0
    """So long an arrival waits in the generator for a free connection; then it is unsent."""
    line_max: int = 10_000
    """So many arrivals may wait at a time; one more is unsent at once."""
    answer_s: float = 10.0
    """So long an answer may take, from the moment of sending; then its connection is given up."""
    busy_poll: bool = False
    """Look at the clock all the time, instead of every millisecond: more exact, and takes all of its core."""

    def __post_init__(self) -> None:
        if self.connections_max < 1 or not 0 <= self.connections_min <= self.connections_max:
            raise ValueError("connections_min must be from 0 to connections_max, and that at least 1")
        if not 0 <= self.warm_up_s < self.schedule.seconds:
            raise ValueError("the warm-up must be shorter than the schedule")
        if min(self.patience_s, self.answer_s) <= 0 or self.line_max < 1:
            raise ValueError("patience_s, answer_s and line_max must be more than 0")
