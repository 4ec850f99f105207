"""The store's clock, as well as this process can know it between looks.

The store itself decides windows and deadlines. This estimate serves what is only shown or checked
here: the phase in a campaign's answer, a token's expiry, a webhook's age. It follows the store and
not this machine, whose clock may be wrong.
"""

from __future__ import annotations

import time


class StoreClock:
    """Milliseconds of the store's clock, estimated from its last word and this machine's stopwatch."""

    def __init__(self) -> None:
        self._ahead_ms = time.time() * 1000 - time.monotonic() * 1000

    def hear(self, store_now_ms: int) -> None:
        """The store has said what time it is."""
        self._ahead_ms = store_now_ms - time.monotonic() * 1000

    def now_ms(self) -> int:
        return int(time.monotonic() * 1000 + self._ahead_ms)
