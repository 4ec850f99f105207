"""The matrix, each of its quick faults once: nothing is lost, sold twice or charged twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.faults.matrix import FAULTS

ROOT = Path(__file__).parents[2]
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()


@pytest.mark.timeout(400)
def test_the_quick_faults_break_no_promise(tmp_path: Path) -> None:
    found = tmp_path / "rounds.json"
    command = [sys.executable, "-m", "loadtests.faults", "--quick", "--rounds", "1"]
    command += ["--rate", "80", "--seconds", "2", "--json", str(found), "--logs", str(tmp_path / "logs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = json.loads(found.read_bytes())
    assert {one["fault"] for one in rounds} == {fault.name for fault in FAULTS.values() if fault.quick}
    assert all(one["verdict"]["acknowledged"] > 0 for one in rounds)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_says_what_happens_and_stands_in_the_documentation(name: str) -> None:
    fault = FAULTS[name]
    assert fault.what
    assert fault.loses
    assert (fault.admits_seconds is None) == (fault.loses == "nothing")
    assert RELIABILITY.count(f"`{name}`") >= 2, "in the table, and in the runbook"
