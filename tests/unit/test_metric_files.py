"""/metrics of many processes: what the dead have counted stays counted, once, in as few files as ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from prometheus_client import mmap_dict
from prometheus_client.parser import text_string_to_metric_families

from gateway.metric_files import tidy
from gateway.metrics import exposition

COUNTING = """
import sys
import gateway.metrics as m
for campaign in sys.argv[1:]:
    m.RESERVATIONS.labels(campaign, 'flash_sale', 'held').inc(3)
    m.REQUESTS.labels('/v1', 'GET', '200').observe(0.004)
m.WATCHERS.labels('campaign').inc(5)
print('counted', flush=True)
input()
"""
_dead_pids = count(2_000_000_000)
"""Beyond what any kernel gives out."""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


@contextmanager
def counting(*campaigns: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has counted three reservations and a request for each of these, and watches."""
    command = [sys.executable, "-c", COUNTING, *campaigns]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"counted\n"
        try:
            yield process
        finally:
            process.kill()


def killed(*campaigns: str) -> None:
    with counting(*campaigns) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def died(directory: Path, value: float, *, seconds: float = 0.004) -> None:
    """What a process leaves that has counted so much, and is dead."""
    pid = next(_dead_pids)
    for kind, name, labels in (
        (
            "counter",
            "doorbuster_reservations_total",
            {"campaign": "a", "kind": "flash_sale", "outcome": "held"},
        ),
        ("histogram", "doorbuster_request_duration_seconds_sum", {"method": "GET"}),
        ("histogram", "doorbuster_request_duration_seconds_bucket", {"le": "+Inf", "method": "GET"}),
        ("gauge_livesum", "doorbuster_watchers", {"stream": "campaign"}),
    ):
        file = mmap_dict.MmapedDict(str(directory / f"{kind}_{pid}.db"))
        metric = name.removesuffix("_total").removesuffix("_sum").removesuffix("_bucket")
        key = mmap_dict.mmap_key(metric, name, list(labels), list(labels.values()), "Help.")
        file.write_value(key, seconds if name.endswith("_sum") else value, 0.0)
        file.close()


def told(hidden: frozenset[str] = frozenset()) -> dict[str, float]:
    """By series, as it is written."""
    families = text_string_to_metric_families(exposition([], hidden).decode())
    return {
        f"{one.name}{json.dumps(one.labels, sort_keys=True)}": one.value
        for family in families
        for one in family.samples
    }


def reservations(campaign: str = "a") -> float:
    labels = {"campaign": campaign, "kind": "flash_sale", "outcome": "held"}
    return told().get(f"doorbuster_reservations_total{json.dumps(labels)}", 0.0)


def test_a_worker_that_dies_takes_no_count_with_it_and_its_successor_goes_on(directory: Path) -> None:
    request = '{"method": "GET", "route": "/v1", "status": "200"}'
    with counting("a"):
        for dead in range(1, 4):
            killed("a", "b")
            found = told()
            assert reservations() == 3 * (dead + 1)
            assert reservations("b") == 3 * dead
            assert found[f"doorbuster_request_duration_seconds_count{request}"] == 1 + 2 * dead
            assert found[f"doorbuster_request_duration_seconds_sum{request}"] == pytest.approx(
                0.004 * (1 + 2 * dead)
            )
            assert found['doorbuster_watchers{"stream": "campaign"}'] == 5, (
                "what the dead watched is not watched"
            )
    assert reservations() == 12


def test_processes_that_die_over_and_over_leave_no_more_files_than_one(directory: Path) -> None:
    sizes = []
    for life in range(1, 301):
        died(directory, 2)
        tidy(directory)
        sizes.append(sum(file.stat().st_size for file in directory.glob("*.db")))
        if life % 100 == 0:
            assert reservations() == 2 * life
    assert sorted(file.name for file in directory.glob("*.db")) == [
        "counter_merged.db",
        "histogram_merged.db",
    ]
    assert sizes[-1] == sizes[0]


@pytest.mark.parametrize("step", ["write_text", "rename", "unlink"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_who_dies_while_merging_leaves_nothing_uncounted_or_counted_twice(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool, nth: int
) -> None:
    died(directory, 5)
    tidy(directory)
    died(directory, 7)
    died(directory, 11)
    original: Callable[..., object] = getattr(Path, step)
    calls = count(1)

    def dying(path: Path, *arguments: object, **named: object) -> object:
        if next(calls) != nth:
            return original(path, *arguments, **named)
        if after:
            original(path, *arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, step, dying)
        with pytest.raises(KeyboardInterrupt) if next_reached(step, nth) else monkeypatch.context():
            tidy(directory)
    assert reservations() == 23
    assert told()['doorbuster_request_duration_seconds_count{"method": "GET"}'] == 23
    assert len(list(directory.glob("*.db"))) == 2


def next_reached(step: str, nth: int) -> bool:
    """Whether a merge of both kinds takes this step so often."""
    return nth <= {"write_text": 2, "rename": 2, "unlink": 3}[step]


def test_many_who_scrape_at_once_count_everything_once(directory: Path) -> None:
    found: list[float] = []
    for _ in range(20):
        died(directory, 1)
    scrapes = [threading.Thread(target=lambda: found.append(reservations())) for _ in range(8)]
    for scrape in scrapes:
        scrape.start()
    for scrape in scrapes:
        scrape.join()
    assert found == [20.0] * 8


def test_a_file_that_a_process_is_just_beginning_is_passed_over(directory: Path) -> None:
    died(directory, 4)
    (directory / f"counter_{os.getpid()}.db").touch()
    assert reservations() == 4


def test_campaigns_that_are_long_over_are_not_told_of(directory: Path) -> None:
    with counting("new", "old"):
        assert {"new", "old"} == campaigns(told())
        assert {"new"} == campaigns(told(frozenset({"old"})))


def campaigns(series: dict[str, float]) -> set[str]:
    labels = [json.loads("{" + name.partition("{")[2]) for name in series]
    return {one["campaign"] for one in labels if "campaign" in one}
