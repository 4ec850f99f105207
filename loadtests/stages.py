"""The stages of an opening: how many shoppers there are, and for how long. Pure: no Locust in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TRICKLE_PART = 20
"""One in so many of the peak's shoppers is there before the opening, and at the end."""
PLATEAU_PART = 2
"""One in so many stays when the rush is over."""


@dataclass(frozen=True, slots=True)
class Stage:
    """So many shoppers for so long. Whole seconds: Locust looks at the shape once a second."""

    name: str
    seconds: int
    users: int


def opening_spike(
    *, peak_users: int, warm_up_seconds: int, spike_seconds: int, plateau_seconds: int, tail_seconds: int
) -> tuple[Stage, ...]:
    """A trickle of early birds, everybody in one step at the opening, half of them, and a trickle again."""
    trickle = max(1, peak_users // TRICKLE_PART)
    return (
        Stage("warm-up", warm_up_seconds, trickle),
        Stage("spike", spike_seconds, peak_users),
        Stage("plateau", plateau_seconds, max(1, peak_users // PLATEAU_PART)),
        Stage("tail", tail_seconds, trickle),
    )


def stage_at(stages: Iterable[Stage], run_time_s: float) -> Stage | None:
    """The stage that a test is in after this long; None when it is over."""
    # Locust's ticks come a little off the full second. The nearest one is meant: a spike that waits
    # for the next tick misses the opening by a second.
    left = round(run_time_s)
    for stage in stages:
        if left < stage.seconds:
            return stage
        left -= stage.seconds
    return None
