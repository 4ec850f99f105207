"""Servers that stand in for each other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ha.redis_servers import Guarded


@pytest.fixture(scope="module")
def trios(redis_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Guarded]]:
    """Two, which take their time to know each other at the same time."""
    found = [Guarded(redis_program, tmp_path_factory.mktemp("guarded")) for _ in range(2)]
    with ExitStack() as running, ThreadPoolExecutor() as threads:
        for one in found:
            running.callback(one.kill)
        list(threads.map(Guarded.start, found))
        yield [*found]


@pytest.fixture
def guarded(trios: list[Guarded]) -> Guarded:
    """One's own: who has failed over is not as before."""
    return trios.pop()
