"""A clock that stands still until it is told, for a world and for the Redis in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from reservation.clock import StoreClock
from tests.servers import redis_server

START_MS = 1_800_000_000_000


class FrozenClock(StoreClock):
    """The store's clock, known exactly: what the store says of the time must be just that."""

    def __init__(self, tell: Callable[[int], None] = lambda ms: None) -> None:
        self._tell = tell
        self.set(START_MS)

    def set(self, ms: int) -> None:
        self.ms = ms
        self._tell(ms)

    def hear(self, store_now_ms: int) -> None:
        assert store_now_ms == self.ms, "the store's clock is the one that we hold"

    def now_ms(self) -> int:
        return self.ms


class TimeFile:
    """The file that libfaketime reads whenever the server asks for the time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_suffix(".next")

    def write(self, ms: int) -> None:
        at = datetime.fromtimestamp(ms // 1000, UTC)
        # Half a millisecond more, since it is read as a float, and the store rounds down.
        self._next.write_text(f"{at:%Y-%m-%d %H:%M:%S}.{ms % 1000:03d}5\n")
        self._next.replace(self._path)


@contextmanager
def frozen_redis(server: Path, home: Path) -> Iterator[tuple[str, TimeFile]]:
    """A Redis whose TIME stands at what is in its file, to the millisecond; its URL and the file."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    file = TimeFile(home / "time")
    file.write(START_MS)
    environment = {
        # libc comes next for its malloc: jemalloc asks for the time before libfaketime is ready to say it.
        "LD_PRELOAD": f"{library} libc.so.6",
        "FAKETIME_TIMESTAMP_FILE": os.fspath(home / "time"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TZ": "UTC",
    }
    socket = home / "redis.sock"
    options = ("--appendonly", "no", "--unixsocket", str(socket))
    with redis_server(server, home, *options, environment=environment):
        yield f"unix://{socket}", file
