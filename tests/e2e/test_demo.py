"""`doorbuster demo`: what a newcomer runs first."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path

from tests.stack import COMMAND


def test_the_demo_plays_all_three_kinds_and_every_invariant_holds(tmp_path: Path) -> None:
    # Settings of whoever runs it have no say in it.
    environment = {**os.environ, "DOORBUSTER_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [*COMMAND, "demo", "--shoppers", "300"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.findall(r"^  (I\d|API) +(held|BROKEN)", done.stdout, re.MULTILINE) == [
        (name, "held") for name in ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "API")
    ]
    for kind in ("flash_sale", "presale", "trade_in"):
        assert f"  {kind}" in done.stdout
    assert re.search(r"gifts (\d+) of \1 ", done.stdout)
    assert re.search(r"waitlist [1-9]\d* of \d+ served", done.stdout)
    left = [path for path in tmp_path.rglob("*") if path.suffix == ".html"]
    assert {path.stem for path in left} == {"midnight-drop", "singles-day-phones", "tv-trade-in"}
    assert [path.name for path in tmp_path.iterdir()] == ["doorbuster-report"], "and nothing else is left"
    named = done.stdout.splitlines()
    assert all(str(path.relative_to(tmp_path)) in named for path in left)
    with (tmp_path / "doorbuster-report" / "singles-day-phones" / "summary.csv").open(
        encoding="utf-8-sig"
    ) as table:
        summary = {row["figure"]: row["value"] for row in csv.DictReader(table)}
    assert int(summary["visitors"]) >= int(summary["participants"]) > 0
