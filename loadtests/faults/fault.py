"""What a fault is, and how one is told to the matrix."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from loadtests.faults.shoppers import Load
from loadtests.faults.stack import Setting, Stack

NOTHING = "nothing"


class Missed(Exception):
    """The fault did not happen as it should have, so the round proves nothing. The message says why."""


@dataclass(slots=True)
class Moment:
    """When a fault struck and when it was over, by time.monotonic(), and what was seen of it."""

    rng: random.Random
    began_at: float = 0.0
    gone_at: float = 0.0
    ended_at: float = 0.0
    seen: list[str] = field(default_factory=list)
    """Evidence that it happened, for people."""
    repairs: list[str] = field(default_factory=list)
    """What an operator had to do."""
    named: set[str] | None = None
    """Reservations that repair has named as lost; None where nobody looked."""

    def begins(self) -> None:
        """What was acknowledged before is what may be lost, where anything may be."""
        self.began_at = self.gone_at = time.monotonic()

    def gone(self) -> None:
        """What may be lost is lost by now: that took a moment, or there were two masters for a while."""
        self.gone_at = time.monotonic()

    def over(self) -> None:
        """From here on the system recovers; operators' repairs are part of that."""
        self.ended_at = time.monotonic()

    def expect(self, happened: bool, what: str) -> None:
        """Raises Missed unless it happened."""
        if not happened:
            raise Missed(what)
        self.seen.append(what)


Inject = Callable[[Stack, Moment], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the matrix."""

    name: str
    what: str
    """What happens, in a line or two."""
    inject: Inject
    """Has it happen; returns when it is over."""
    setting: Setting
    loses: str
    """What of what was acknowledged may be lost."""
    admits_seconds: float | None
    """How long before the fault what is lost was acknowledged; None where nothing may be lost."""
    load: Load
    quick: bool
    """Whether it is among those that `make test` plays once."""
    no_malfunction: bool
    """Whether shoppers may see no 5xx but `overloaded`: a maintenance, and not an accident."""


FAULTS: dict[str, Fault] = {}
"""By name, in the order of the matrix."""


def fault(
    *,
    setting: Setting = Setting(),  # noqa: B008  (frozen)
    loses: str = NOTHING,
    admits_seconds: float | None = None,
    load: Load = Load(),  # noqa: B008  (frozen)
    quick: bool = False,
    no_malfunction: bool = False,
) -> Callable[[Inject], Inject]:
    """Put a function into the matrix, under its name; its docstring says what happens."""

    def register(inject: Inject) -> Inject:
        what = " ".join((inject.__doc__ or "").split())
        name = getattr(inject, "__name__", "")
        FAULTS[name] = Fault(name, what, inject, setting, loses, admits_seconds, load, quick, no_malfunction)
        return inject

    return register
