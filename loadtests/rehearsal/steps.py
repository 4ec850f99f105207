"""The steps of a rehearsal: each is an opening of its own, with more shoppers a second. Pure."""

from __future__ import annotations

from loadtests.openloop.schedule import ARRIVALS_MAX

STEPS_MAX = 20
STEP_SECONDS_MAX = 600.0
STEP_ARRIVALS_MIN = 10
"""In the mean. Fewer tell nothing, and with one or two there may be none at all."""


def rates(peak: float, steps: int) -> list[float]:
    """Arrivals per second, in even steps up to the peak. Raises ValueError."""
    if not (peak > 0 and 1 <= steps <= STEPS_MAX):
        raise ValueError(f"the peak must be more than 0, and steps from 1 to {STEPS_MAX}")
    return [peak * step / steps for step in range(1, steps + 1)]


def check_size(peak: float, steps: int, seconds: float) -> None:
    """Raises ValueError when a step would be larger than the generator takes, or too small to tell."""
    if not 0 < seconds <= STEP_SECONDS_MAX:
        raise ValueError(f"a step must take from 0 to {STEP_SECONDS_MAX:g} s")
    if peak * seconds > ARRIVALS_MAX / 2:  # at random there may be somewhat more
        raise ValueError(f"{peak:g}/s for {seconds:g} s are more than {ARRIVALS_MAX // 2} arrivals in a step")
    if (first := peak / steps * seconds) < STEP_ARRIVALS_MIN:
        raise ValueError(
            f"a first step of {first:.1f} arrivals tells nothing: fewer or longer steps, or a higher peak"
        )
