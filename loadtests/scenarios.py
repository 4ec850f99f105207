"""The scenarios: what is sold, in what shape shoppers come, what a run must keep. Pure: no Locust in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from loadtests.stages import (
    BALANCE,
    GAP,
    SECOND,
    TAIL,
    WARM_UP,
    Sizes,
    Stage,
    double_peak,
    opening_spike,
    ramp,
    soak,
    sold_out_storm,
    start_of,
    two_windows,
)
from loadtests.thresholds import Limits


@dataclass(frozen=True, slots=True)
class Goods:
    """What is on sale: units, the quota, and how long an unpaid reservation stands."""

    stock: int
    per_user: int
    hold_seconds: int


@dataclass(frozen=True, slots=True)
class Windows:
    """When what opens and closes, in seconds from the beginning of a test."""

    opens: int
    closes: int
    balance_opens: int | None = None
    balance_closes: int | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of sale, and a kind of crowd."""

    name: str
    about: str
    """What it asks."""
    kind: str
    shape: Callable[[Sizes], tuple[Stage, ...]]
    sizes: Sizes
    goods: Goods
    limits: Limits = field(default_factory=Limits)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Where its shoppers are otherwise than their kind's."""
    climbs: bool = False
    """Whether it ends at the first step that breaks a threshold, which is then no failure but the answer."""
    restocks: bool = False
    """Whether as much again is put on sale when the second spike begins."""


FLASH_SALE = Scenario(
    "flash-sale",
    "Is a sale right when everybody comes at its opening?",
    "flash_sale",
    opening_spike,
    Sizes(200, warm_up_seconds=10, spike_seconds=20, plateau_seconds=30, tail_seconds=20),
    Goods(stock=20, per_user=1, hold_seconds=10),
)
PRESALE = Scenario(
    "presale",
    "Are deposits, changes of mind, balances and forfeits right, each in its window?",
    "presale",
    two_windows,
    Sizes(
        120,
        warm_up_seconds=5,
        spike_seconds=15,
        plateau_seconds=15,
        gap_seconds=5,
        balance_seconds=20,
        tail_seconds=5,
    ),
    Goods(stock=300, per_user=3, hold_seconds=8),
)
TRADE_IN = Scenario(
    "trade-in",
    "Are add-ons right while the main orders that they hang on are reported and cancelled?",
    "trade_in",
    opening_spike,
    Sizes(120, warm_up_seconds=5, spike_seconds=20, plateau_seconds=30, tail_seconds=5),
    Goods(stock=150, per_user=4, hold_seconds=8),
)
DOUBLE_PEAK = Scenario(
    "double-peak",
    "Does a second crowd get what is put on sale for it, and what the first left?",
    "flash_sale",
    double_peak,
    Sizes(200, warm_up_seconds=5, spike_seconds=15, plateau_seconds=20, second_seconds=15, tail_seconds=10),
    Goods(stock=30, per_user=1, hold_seconds=8),
    restocks=True,
)
SOAK = Scenario(
    "soak",
    "Is it as quick after hours as in the first minute?",
    "flash_sale",
    soak,
    Sizes(60, warm_up_seconds=5, plateau_seconds=60, tail_seconds=5),
    Goods(stock=100_000, per_user=2, hold_seconds=10),
)
RAMP = Scenario(
    "ramp",
    "With how many shoppers at once does it break?",
    "flash_sale",
    ramp,
    Sizes(400, warm_up_seconds=4, steps=8, step_seconds=8),
    Goods(stock=1_000_000, per_user=2, hold_seconds=30),
    Limits(p99_ms=1_000),
    {"bot": 0, "watch": 0},
    climbs=True,
)
SOLD_OUT_STORM = Scenario(
    "sold-out-storm",
    "Is saying no cheap, when a huge crowd comes for what is gone?",
    "flash_sale",
    sold_out_storm,
    Sizes(300, warm_up_seconds=5, spike_seconds=5, plateau_seconds=45, tail_seconds=5),
    Goods(stock=3, per_user=1, hold_seconds=600),
    weights={"stampede": 30, "never_pay": 0, "give_up": 0},
)
ALL = (FLASH_SALE, PRESALE, TRADE_IN, DOUBLE_PEAK, SOAK, RAMP, SOLD_OUT_STORM)
SCENARIOS: Mapping[str, Scenario] = {one.name: one for one in ALL}
SIZES = tuple(one.name for one in fields(Sizes))
GOODS = tuple(one.name for one in fields(Goods))


def windows_of(kind: str, stages: tuple[Stage, ...]) -> Windows:
    """When a sale of this kind is open while these stages go on."""
    opens = next((stage.seconds for stage in stages if stage.name == WARM_UP), 0)
    ends = max(opens + 1, start_of(stages, TAIL))
    if kind != "presale":
        return Windows(opens, ends)
    closes = max(opens + 1, start_of(stages, GAP))
    balance_opens = max(closes, start_of(stages, BALANCE))
    return Windows(opens, closes, balance_opens, max(balance_opens + 1, ends))


def restock_at(scenario: Scenario, stages: tuple[Stage, ...]) -> int | None:
    """Seconds from the beginning until more is put on sale; None where nothing is."""
    return start_of(stages, SECOND) if scenario.restocks else None
