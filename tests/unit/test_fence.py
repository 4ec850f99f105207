"""Why a store is fenced is said so that it can be understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from reservation.fence import Fence
from reservation.keys import ALL_SHARDS


class Server:
    """One that says which run it is, and keeps what it is fenced for."""

    def __init__(self, epoch: int, run_id: str) -> None:
        self._epoch, self._run_id = epoch, run_id
        self.reasons: set[str] = set()

    async def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        if commands[0][0] == "INFO":
            return [f"run_id:{self._run_id}\r\n".encode()]
        if commands[0][0] == "SET":
            self.reasons |= {command[2] for command in commands}
        assert len(commands) == len(ALL_SHARDS)
        return [[self._epoch, self._run_id.encode(), b"0-0", 0] for _ in commands]


@pytest.mark.parametrize(
    ("epoch", "reason"),
    [
        (1, "this is run 1 of the store, and a later one has been seen: run 2"),
        (2, "this is another store than the one that was seen, and also calls itself run 2"),
        (3, None),
    ],
)
async def test_a_run_that_cannot_follow_the_one_that_was_seen_is_told_why(
    epoch: int, reason: str | None
) -> None:
    fence, first, second = Fence(), Server(2, "a"), Server(epoch, "b")
    await fence.enter(first.ask)
    await fence.enter(first.ask)
    await fence.enter(second.ask)
    assert first.reasons == set()
    assert second.reasons == ({reason} if reason else set())
