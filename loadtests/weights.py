"""What shoppers may do next, and how likely each thing is. Pure: no Locust in here.

What cannot be done now, such as paying for nothing, is not done, whatever its weight.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

COMMON: Mapping[str, float] = {
    "browse": 5,
    "await_opening": 5,
    "stampede": 10,
    "retry": 5,
    "greedy": 2,
    "pay": 6,
    "give_up": 1,
    "never_pay": 1,
    "watch": 1,
    "join": 2,
    "leave": 1,
    "look": 3,
    "bot": 1,
}
HABITS: Mapping[str, Mapping[str, float]] = {
    "flash_sale": COMMON,
    "presale": {**COMMON, "pay": 10, "amend": 2, "balance": 10, "forfeit": 1},
    "trade_in": {**COMMON, "order": 10, "without_order": 1, "pay_with_order": 3, "cancel_order": 1},
}
"""By the campaign's kind. Each is a method of the shopper's of the same name."""


def parse_weights(text: str) -> dict[str, float]:
    """`pay=6,give_up=1` as weights. Raises ValueError, with the reason."""
    found = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, is_said, number = part.partition("=")
        if not any(name in habits for habits in HABITS.values()):
            known = sorted({habit for habits in HABITS.values() for habit in habits})
            raise ValueError(f"{name!r} is nothing that shoppers do: {', '.join(known)}")
        try:
            weight = float(number)
        except ValueError:
            weight = -1
        if not is_said or not 0 <= weight < float("inf"):
            raise ValueError(f"{part!r}: a weight is a number from 0")
        found[name] = weight
    return found


def weights_of(kind: str, *changes: Mapping[str, float]) -> dict[str, float]:
    """The weights of a kind's habits, with changes; those of other kinds' habits change nothing. Raises
    ValueError when nothing is left to do."""
    found = dict(HABITS[kind])
    for change in changes:
        found |= {habit: weight for habit, weight in change.items() if habit in found}
    if not any(found.values()):
        raise ValueError("all weights are 0: shoppers would do nothing")
    return found


def in_turn(weights: Mapping[str, float]) -> Iterator[str]:
    """All habits in an order of chance: each comes first in proportion to its weight, and so on."""
    lots = ((random.expovariate(weight), habit) for habit, weight in weights.items() if weight > 0)
    for _, habit in sorted(lots):
        yield habit
