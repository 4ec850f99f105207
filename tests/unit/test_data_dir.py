"""Commands reach a running `up` with the settings that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorbuster.data_dir import STACK, stack_settings, write_private


@pytest.fixture
def running(tmp_path: Path) -> Path:
    told = {"redis_url": "redis://there/0", "redis_replicas": 2, "allow_unsafe_redis": True, "sandbox": True}
    write_private(tmp_path / STACK, {"settings": told})
    return tmp_path


def test_what_the_environment_does_not_say_is_as_the_running_stack_has_it(running: Path) -> None:
    """Else what a command changes is not on the replicas that everything else waits for."""
    found = stack_settings(running)
    assert (found.redis_replicas, found.allow_unsafe_redis, found.sandbox) == (2, True, True)


def test_what_the_environment_says_comes_first(running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOORBUSTER_REDIS_REPLICAS", "0")
    monkeypatch.setenv("DOORBUSTER_REDIS_URL", "")
    found = stack_settings(running)
    assert (found.redis_replicas, found.redis_url) == (0, "redis://there/0")
