"""A figure: its name, its unit, what it means in one sentence, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Unit(StrEnum):
    """What a figure is counted in. Shares are from 0 to 1; money is in minor units of its currency."""

    COUNT = "count"
    MONEY = "money"
    SHARE = "share"
    SECONDS = "seconds"
    INSTANT = "instant"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Figure(Generic[T]):
    """One figure of a `T`. None is what is not known; never a guess, and never 0 instead."""

    name: str
    title: str
    unit: Unit
    definition: str
    of: Callable[[T], Any]


def values(figures: Iterable[Figure[T]], of: T) -> dict[str, Any]:
    return {figure.name: figure.of(of) for figure in figures}


def share(part: int | None, whole: int | None) -> float | None:
    """The part of the whole; None where either is not known, or there is no whole."""
    if part is None or not whole:
        return None
    return round(part / whole, 6)


def mean(amount: int, count: int) -> int | None:
    """To the nearest minor unit."""
    return None if count == 0 else (2 * amount + count) // (2 * count)
