"""Admission: whether one more request can be answered in time.

Beyond what there is room for, waiting would only make all late. Who is refused is refused at once, and
told when to come back; who is let in is served as fast as ever.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.problems import Problem

REQUESTS_MAX = 4_096
"""That one process works on at once."""
WAIT_SECONDS_MAX = 0.1
"""For the store's word. Who would have to wait longer is refused."""
CROWD = 256
"""But not before so many are under way: a store that stumbles is no overload."""


class Admission:
    """What one process has taken on.

    `wait` says for how many seconds a new reservation will have to wait for the store.
    """

    def __init__(self, requests_max: int = REQUESTS_MAX, wait: Callable[[], float] = lambda: 0.0) -> None:
        self._wait = wait
        self.requests_max = requests_max
        self.requests = 0
        self.backlogged = False
        """Whether the outbox holds more than it may: what is sold is not written down fast enough."""
        self.draining = False
        """Answers what still comes on open connections, and asks each client to come back on a new one."""

    @property
    def full(self) -> bool:
        """Whether there is room for no request at all."""
        return self.requests >= self.requests_max

    @property
    def closed_to_reservations(self) -> bool:
        """Whether a new reservation would have to wait too long, or could not be passed on."""
        if self.full or self.backlogged:
            return True
        return self.requests > CROWD and self._wait() > WAIT_SECONDS_MAX


def overloaded() -> Problem:
    return Problem("overloaded", "More requests are under way than can be answered in time.")
