"""What became of a request that was not answered: nothing, or nobody knows.

A request may take several steps. One that fails before any of them can have changed the store has surely done
nothing. After that, only asking again with the same key tells.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum


class Unanswered(StrEnum):
    """What is known of a request that the store gave no answer to."""

    NOT_MADE = "not_made"
    UNKNOWN = "unknown"


class Attempt:
    """One request, as far as it has come."""

    def __init__(self) -> None:
        self.outcome = Unanswered.NOT_MADE


_current: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def begin() -> Attempt:
    """What is written from here on is written for this request, in tasks that it starts too."""
    attempt = Attempt()
    _current.set(attempt)
    return attempt


def changed() -> None:
    """The store was changed, or may have been."""
    attempt = _current.get()
    if attempt is not None:
        attempt.outcome = Unanswered.UNKNOWN
