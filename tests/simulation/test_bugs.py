"""The checker is checked: every planted bug is caught, on seeds that hold nothing against the real code."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.catching import SEEDS_MAX, caught_by
from tests.simulation.world import live

LAST_SEEN = {
    "confirmed_before_replicated": 63,
    "decrement_then_publish": 30,
    "hole_in_the_history": 81,
    "line_is_no_secret": 78,
    "line_is_skipped": 89,
    "read_without_pending": 28,
    "sweeper_without_version": 268,
    "trade_in_outlives_its_order": 46,
}
"""Where the rarer ones were caught. A test looks there first, to be short; any change to what is lived moves
them, and then it looks on from there."""


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    caught = caught_by(name, LAST_SEEN.get(name, 1))
    assert caught is not None, f"{name} was not caught in {SEEDS_MAX} seeds: {BUGS[name].what}"
    seed, _ = caught
    assert live(seed, BUGS[name].loss, BUGS[name].kind).violations == [], (
        "without the bug nothing is wrong with that seed"
    )


def test_there_are_enough_of_them() -> None:
    assert len(BUGS) >= 20
    assert all(bug.what for bug in BUGS.values()), "each says what is wrong"
