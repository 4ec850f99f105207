"""What this process has counted so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY


def counted(name: str, **labels: str) -> float:
    """The value of a series; 0 when there is none."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Rise:
    """By how much a series rose in a block."""

    by = 0.0


@contextmanager
def rising(name: str, **labels: str) -> Iterator[Rise]:
    before, rise = counted(name, **labels), Rise()
    yield rise
    rise.by = counted(name, **labels) - before
