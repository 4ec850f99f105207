"""The stages of a load: how many shoppers there are, and for how long. Pure: no Locust in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WARM_UP, SPIKE, PLATEAU, GAP, BALANCE = "warm-up", "spike", "plateau", "gap", "balance"
SECOND, STORM, TAIL, STEP = "second spike", "storm", "tail", "step"
TRICKLE_PART = 20
"""One in so many of the peak's shoppers is there before the opening, and at the end."""
PLATEAU_PART = 2
"""One in so many stays when the rush is over."""
BETWEEN_PART = 4
"""One in so many stays between two peaks, and sells out before a storm."""


@dataclass(frozen=True, slots=True)
class Stage:
    """So many shoppers for so long. Whole seconds: Locust looks at the shape once a second."""

    name: str
    seconds: int
    users: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a scenario's stages are made of; each scenario takes what it needs."""

    peak_users: int
    warm_up_seconds: int = 0
    spike_seconds: int = 0
    plateau_seconds: int = 0
    gap_seconds: int = 0
    balance_seconds: int = 0
    second_seconds: int = 0
    tail_seconds: int = 0
    steps: int = 1
    step_seconds: int = 0

    def part(self, of_peak: int) -> int:
        """One in so many of the peak's shoppers; one at least."""
        return max(1, self.peak_users // of_peak)


def opening_spike(sizes: Sizes) -> tuple[Stage, ...]:
    """A trickle of early birds, everybody in one step at the opening, half of them, and a trickle again."""
    return (
        Stage(WARM_UP, sizes.warm_up_seconds, sizes.part(TRICKLE_PART)),
        Stage(SPIKE, sizes.spike_seconds, sizes.peak_users),
        Stage(PLATEAU, sizes.plateau_seconds, sizes.part(PLATEAU_PART)),
        Stage(TAIL, sizes.tail_seconds, sizes.part(TRICKLE_PART)),
    )


def two_windows(sizes: Sizes) -> tuple[Stage, ...]:
    """An opening, a gap in which few look, and everybody again when balances may be paid."""
    *opening, tail = opening_spike(sizes)
    gap = Stage(GAP, sizes.gap_seconds, sizes.part(PLATEAU_PART))
    return (*opening, gap, Stage(BALANCE, sizes.balance_seconds, sizes.peak_users), tail)


def double_peak(sizes: Sizes) -> tuple[Stage, ...]:
    """An opening, a quarter of the shoppers, and everybody once more: when more is put on sale."""
    warm_up, spike, _, tail = opening_spike(sizes)
    between = Stage(PLATEAU, sizes.plateau_seconds, sizes.part(BETWEEN_PART))
    return (warm_up, spike, between, Stage(SECOND, sizes.second_seconds, sizes.peak_users), tail)


def soak(sizes: Sizes) -> tuple[Stage, ...]:
    """The same number of shoppers, for as long as wanted."""
    warm_up, _, _, tail = opening_spike(sizes)
    return (warm_up, Stage(PLATEAU, sizes.plateau_seconds, sizes.peak_users), tail)


def ramp(sizes: Sizes) -> tuple[Stage, ...]:
    """More shoppers with every step, up to the peak."""
    users = (max(1, sizes.peak_users * step // sizes.steps) for step in range(1, sizes.steps + 1))
    steps = (Stage(f"{STEP} {n}", sizes.step_seconds, count) for n, count in enumerate(users, 1))
    return (Stage(WARM_UP, sizes.warm_up_seconds, sizes.part(TRICKLE_PART)), *steps)


def sold_out_storm(sizes: Sizes) -> tuple[Stage, ...]:
    """A few buy all there is; then everybody comes, and is told so."""
    warm_up, _, _, tail = opening_spike(sizes)
    spike = Stage(SPIKE, sizes.spike_seconds, sizes.part(BETWEEN_PART))
    return (warm_up, spike, Stage(STORM, sizes.plateau_seconds, sizes.peak_users), tail)


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


def start_of(stages: Iterable[Stage], name: str) -> int:
    """Seconds from the beginning to the stage of this name; to the end, where there is none."""
    seconds = 0
    for stage in stages:
        if stage.name == name:
            break
        seconds += stage.seconds
    return seconds
