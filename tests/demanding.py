"""Files of tests that want a core or two of their own: where two processes run side by side, one of them runs
such a file at a time, and the other goes on with the rest."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

import pytest

TESTS = Path(__file__).parent
DEMANDING = tuple(
    TESTS / name
    for name in (
        "e2e/test_demo.py",
        "e2e/test_rehearse.py",
        "e2e/test_up.py",
        "faults/test_matrix.py",
        "ha/test_cluster.py",
        "ha/test_rabbit_nodes.py",
        "monitoring/test_real_prometheus.py",
        "test_bench.py",
        "test_loadtests.py",
        "test_openloop.py",
    )
)
_LOCK = Path(tempfile.gettempdir()) / f"doorbuster-demanding-tests-{os.getuid()}.lock"


class OneAtATime:
    """A lock that the processes of a machine share, for as long as a file takes."""

    def __init__(self) -> None:
        self._held: IO[str] | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before the time limit of the test begins
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        if item.path in DEMANDING and self._held is None:
            self._held = _LOCK.open("w")
            fcntl.flock(self._held, fcntl.LOCK_EX)
        try:
            return (yield)
        finally:
            if self._held is not None and (nextitem is None or nextitem.path != item.path):
                self._held.close()
                self._held = None


def spread(items: list[pytest.Item]) -> None:
    """Put the demanding files evenly among the others, so that neither process waits for long."""
    by_file = [list(some) for _, some in itertools.groupby(items, lambda item: item.path)]
    demanding = [some for some in by_file if some[0].path in DEMANDING]
    others = [some for some in by_file if some[0].path not in DEMANDING]
    items[:] = itertools.chain.from_iterable(_spread(demanding, others))


def _spread(few: list[list[pytest.Item]], many: list[list[pytest.Item]]) -> Iterator[list[pytest.Item]]:
    between = len(many) / max(1, len(few))
    for number, one in enumerate(few):
        yield one
        yield from many[round(number * between) : round((number + 1) * between)]
    if not few:
        yield from many
