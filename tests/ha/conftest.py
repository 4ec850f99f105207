"""Servers that stand in for each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ha.redis_servers import Guarded, started


@pytest.fixture
def guarded(redis_program: Path, tmp_path: Path) -> Iterator[Guarded]:
    """One's own: who has failed over is not as before."""
    found = Guarded(redis_program, tmp_path)
    with started(found):
        yield found
