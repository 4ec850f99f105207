"""Gauges of many processes: what a process said of itself ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram

from gateway.metrics import exposition, observe_all

PROCESS = (
    "import gateway.metrics as m; m.WATCHERS.labels('campaign').set(7); print('set', flush=True); input()"
)


def test_a_process_that_was_killed_watches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    def watchers() -> float:
        lines = exposition([]).decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("doorbuster_watchers{"))

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS], **pipes) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"set\n"
        assert watchers() == 14
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].wait()
        assert watchers() == 7
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_many_observed_at_once_are_as_if_observed_one_by_one() -> None:
    values = [0.0005, 0.001, 0.0011, 0.3, 0.3, 12.0, 0.0, 9.99, 10.0]
    found = []
    for name in ("once", "singly"):
        registry = CollectorRegistry()
        histogram = Histogram("seconds", "Of a test.", ["of"], buckets=(0.001, 0.5, 10), registry=registry)
        child = histogram.labels("x")
        if name == "once":
            observe_all(child, list(values))
        else:
            for value in values:
                child.observe(value)
        samples = [
            (one.name, one.labels, one.value) for metric in registry.collect() for one in metric.samples
        ]
        found.append([sample for sample in samples if not sample[0].endswith("_created")])
    assert found[0] == found[1]
