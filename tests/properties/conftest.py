"""How many sequences are tried, and what they have reached."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture.engine import ConjectureRunner

from reservation import pipe
from tests.conftest import _redis_of_the_system
from tests.properties.clock import TimeFile, frozen_redis
from tests.properties.reached import REACHED

SEQUENCES = int(os.environ.get("DOORBUSTER_PROPERTY_SEQUENCES", "30"))
"""A few in `make test`; `make properties` tries 5,000."""

profile = settings(
    max_examples=SEQUENCES,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.fixture(scope="module", autouse=True)
def every_sequence_is_another() -> Iterator[None]:
    """Hypothesis tries each example some seven times over, hardly changed. Ours cost too much for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConjectureRunner, "generate_mutations_from", lambda *_: None, raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def no_connection_is_given_up() -> Iterator[None]:
    """How long a busy machine takes to connect is no part of anybody's life here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipe, "CONNECT_PATIENCE_SECONDS", 60.0)
        yield


@pytest.fixture(scope="module")
def redis_at_will(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TimeFile]]:
    """A Redis whose clock stands still until it is told."""
    with frozen_redis(_redis_of_the_system(), tmp_path_factory.mktemp("frozen-redis")) as found:
        yield found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REACHED.sequences:
        terminalreporter.section("sequences")
        for line in REACHED.lines():
            terminalreporter.write_line(line)
