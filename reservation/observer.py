"""Who is told how the store is asked: for metrics, which this package knows nothing of."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol


class Failure(StrEnum):
    """Why commands got no answer of the store."""

    AWAY = "away"  # there is no connection, and they were not sent
    LOST = "lost"  # the connection went while they were on their way
    LATE = "late"  # no reply within pipe.REPLY_SECONDS_MAX
    REPLICAS = "replicas"  # too few replicas have, or would have had, what they write
    UNABLE = "unable"  # the server answered that it cannot serve: loading, out of memory, read-only


class Command(Protocol):
    """A command that was asked for."""

    @property
    def name(self) -> str:
        """Of the script, or the command itself in lower case."""
        ...

    @property
    def asked(self) -> int:
        """How many wait for it."""
        ...


class Observer(Protocol):
    """Told once for a whole batch, so that it costs next to nothing."""

    def answered(self, batch: Sequence[Command], seconds: float) -> None:
        """These were written together, and have their replies so much later."""
        ...

    def took(self, name: str, seconds: float) -> None:
        """One that had a connection of its own has its reply."""
        ...

    def failed(self, failure: Failure, commands: int) -> None:
        """So many got none."""
        ...


class Nobody:
    """An observer that minds nothing."""

    def answered(self, batch: Sequence[Command], seconds: float) -> None:
        pass

    def took(self, name: str, seconds: float) -> None:
        pass

    def failed(self, failure: Failure, commands: int) -> None:
        pass


NOBODY = Nobody()
