"""Many lives, none of which breaks a promise; and a life is lived again to the letter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.plan import Loss
from tests.simulation.world import Life, live

SEEDS = 60
"""Of each base. A failure says how to see its seed again."""


def says(life: Life) -> str:
    replay = f"python -m tests.simulation --seeds 1 --first {life.seed} --trace"
    return "\n".join([*life.violations, replay])


@pytest.mark.parametrize("base", [1, 1_000_000, 2_000_000])
def test_no_life_breaks_a_promise(base: int) -> None:
    for seed in range(base, base + SEEDS):
        life = live(seed)
        assert not life.violations, says(life)


@pytest.mark.parametrize("loss", [Loss.LAST_SECOND, Loss.EVERYTHING])
def test_what_a_store_has_lost_is_repaired(loss: Loss) -> None:
    for seed in range(4_000_000, 4_000_000 + SEEDS):
        life = live(seed, loss)
        assert not life.violations, says(life)


def test_the_same_seed_is_the_same_life() -> None:
    for seed in (11, 12, 13):
        assert live(seed).trace == live(seed).trace
    assert live(11).trace != live(12).trace


def test_a_life_is_the_same_in_every_process() -> None:
    """Nothing hangs on the order of a set, on an address or on this machine's clock."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "4", "--first", "21", "--trace"]
    traces = []
    for salt in ("1", "2"):
        ran = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True
        )
        traces.append([line for line in ran.stdout.splitlines() if " a minute; " not in line])
    assert traces[0] == traces[1]
    assert len(traces[0]) > 50


def test_no_life_at_all_is_no_success() -> None:
    for asked in (["--seeds", "0"], ["--seeds", "1", "--jobs", "0"]):
        command = [sys.executable, "-m", "tests.simulation", *asked]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 2
        assert ran.stderr.endswith("error: --seeds and --jobs must be 1 or more\n")


def test_lives_reach_what_they_are_for() -> None:
    reached = set[str]()
    for seed in range(1, 121):
        reached |= live(seed).reached
    states = ("confirmed", "expired", "cancelled", "refunded")
    assert {f"flash_sale {state}" for state in states} <= reached
    assert {"presale forfeited", "presale confirmed", "trade_in confirmed", "trade_in cancelled"} <= reached
    events = ("offered", "amended", "payment_returned", "refund_succeeded", "taken_back", "balance_opened")
    assert {f"event {name}" for name in events} <= reached
    assert "lost, and nothing of it for ever" in reached
    assert "lost for ever" in reached
