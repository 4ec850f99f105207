"""`doorbuster rehearse` against a stack: it holds, or says what saturates first, and touches nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml

from doorbuster.errors import Misconfigured
from doorbuster.rehearse import plan_rehearsal
from reservation.validation import Invalid
from tests.servers import wait_until
from tests.stack import COMMAND, SERVICE_KEY, Client, Stack, sale, trade_in

REHEARSAL_SECONDS_MAX = 90
PATIENT = ("--p99-ms", "4000")
"""The tests' machine is busy, and what it holds is not what these tests are about."""


def campaign_file(tmp_path: Path, document: dict[str, Any]) -> Path:
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def rehearse(
    up: Stack,
    path: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    heard: Callable[[subprocess.Popen[str], str], None] = lambda process, line: None,
) -> tuple[int, str, str]:
    """The command, and what it said; every line is `heard` as it comes."""
    command = [*COMMAND, "rehearse", str(path), "--data-dir", str(up.data_dir), *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    too_long = threading.Timer(REHEARSAL_SECONDS_MAX, process.kill)
    too_long.start()
    lines = []
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        for line in process.stdout:
            lines.append(line)
            heard(process, line)
        said = process.stderr.read()
        code = process.wait()
    too_long.cancel()
    return code, "".join(lines), said


def gateways(up: Stack) -> list[int]:
    """The gateway processes of a stack."""
    children = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"\0gateway\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_a_deployment_that_holds_is_said_to_hold_and_the_campaign_itself_is_not_touched(
    up: Stack, client: Client, tmp_path: Path, book_connection: psycopg.Connection
) -> None:
    document = sale(per_user=1, offers=[{"sku": "phone", "price": 5000, "stock": 20}])
    assert (await client.put(document)).status == 201
    path = campaign_file(tmp_path, document)

    code, said, wrong = rehearse(
        *(up, path, "--shoppers", "80", "--peak", "40"),
        *("--steps", "2", "--seconds", "2", "--json"),
        *PATIENT,
    )

    assert code == 0, said + wrong
    found = json.loads(said)
    assert found["ok"]
    assert found["verdict"] == {"holds": True, "rate_held": 40, "saturates": None, "reasons": []}
    assert [step["rate"] for step in found["steps"]] == [20, 40]
    for step in found["steps"]:
        assert step["arrivals"] == step["admitted"] + step["refused"] == step["answered"] > 0
        assert step["admitted"] > 0
        assert step["cores"]["gateway"] > 0
        assert step["processes"]["gateway"] == 2
        assert step["told"]["outbox_oldest_s"] is not None
    # Each step is an opening of its own: its own copy, all of the stock.
    sold = [offer["held"] for one in found["audit"]["campaigns"] for offer in one["offers"]]
    assert sold == [step["admitted"] for step in found["steps"]]
    for copy in found["copies"]:
        assert copy.startswith(f"rehearsal-{document['id']}-")
        assert (await client.call("GET", f"/v1/campaigns/{copy}")).body["phase"] == "closed"
    assert await client.audit(document["id"]) == {
        "phone": {"sku": "phone", "stock": 20, "held": 0, "sold": 0, "available": 20}
    }
    mine = book_connection.execute("SELECT count(*) FROM orders WHERE campaign = %s", [document["id"]])
    assert mine.fetchone() == (0,)


async def test_a_trade_in_is_rehearsed_with_main_orders_of_its_own(up: Stack, tmp_path: Path) -> None:
    path = campaign_file(tmp_path, trade_in(hold_seconds=900))

    code, said, wrong = rehearse(
        *(up, path, "--shoppers", "10", "--peak", "30"),
        *("--steps", "1", "--seconds", "2", "--json"),
        *PATIENT,
    )

    assert code == 0, said + wrong
    (step,) = json.loads(said)["steps"]
    assert step["admitted"] > 0
    assert step["statuses"].keys() <= {"201", "403", "409"}
    assert step["statuses"]["403"] > 0, "who comes a third time has used up the order"
    assert step["other"] == 0


def reserved_in_rehearsals(up: Stack) -> float:
    """How often somebody asked for a reservation in one."""
    lines = requests.get(f"{up.url}/metrics", timeout=10).text.splitlines()
    named = (line for line in lines if line.startswith("doorbuster_reservations_total{"))
    return sum(float(line.rpartition(" ")[2]) for line in named if 'campaign="rehearsal-' in line)


async def test_gateways_that_stand_still_are_what_saturates_and_a_table_says_so(
    up: Stack, tmp_path: Path
) -> None:
    path = campaign_file(tmp_path, sale())
    halted, *others = gateways(up)
    assert others
    before = reserved_in_rehearsals(up)

    def stop_one(process: subprocess.Popen[str], line: str) -> None:
        if line.startswith("step"):
            wait_until(lambda: reserved_in_rehearsals(up) > before, "shoppers come, to a copy that was made")
            os.kill(halted, signal.SIGSTOP)
        elif line.startswith("1 "):  # the load is over; the audit wants them all
            os.kill(halted, signal.SIGCONT)

    try:
        code, said, wrong = rehearse(
            *(up, path, "--shoppers", "100", "--peak", "60"),
            *("--steps", "3", "--seconds", "2", *PATIENT),
            heard=stop_one,
        )
    finally:
        os.kill(halted, signal.SIGCONT)

    assert code == 1, said + wrong
    assert "no step held; first comes the gateways" in said, said
    assert "got no answer" in said
    assert "audit: every invariant holds" in said
    assert not any(line.startswith("2 ") for line in said.splitlines()), "it does not go on to the next step"


async def test_a_generator_that_was_held_up_blames_itself(up: Stack, tmp_path: Path) -> None:
    path = campaign_file(tmp_path, sale())

    def hold_up(process: subprocess.Popen[str], line: str) -> None:
        if line.startswith("step"):
            time.sleep(2)  # it is in the middle of its only step
            process.send_signal(signal.SIGSTOP)
            time.sleep(1)
            process.send_signal(signal.SIGCONT)

    code, said, wrong = rehearse(
        *(up, path, "--shoppers", "100", "--peak", "100"), *("--steps", "1", "--seconds", "5"), heard=hold_up
    )

    assert code == 1, said + wrong
    assert "first comes the load generator" in said
    assert "arrivals were sent" in said


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
async def test_a_rehearsal_that_is_told_to_end_closes_its_copies_first(
    up: Stack, client: Client, tmp_path: Path, told: signal.Signals
) -> None:
    document = sale()

    def end(process: subprocess.Popen[str], line: str) -> None:
        if line.startswith("1 "):  # the second step's copy is there, or comes now
            process.send_signal(told)

    code, said, wrong = rehearse(
        *(up, campaign_file(tmp_path, document), "--shoppers", "100", "--peak", "40"),
        *("--steps", "3", "--seconds", "3", *PATIENT),
        heard=end,
    )

    assert code == 130, said + wrong
    assert "Traceback" not in wrong
    shown = (await client.call("GET", "/v1/campaigns")).body["campaigns"]
    copies = [one["phase"] for one in shown if one["id"].startswith(f"rehearsal-{document['id']}-")]
    assert copies
    assert set(copies) == {"closed"}


def planned(path: Path, data_dir: Path, host: str | None = None) -> None:
    plan_rehearsal(path, data_dir, host=host, shoppers=10, peak=10, steps=1, seconds=1, p99_ms=500)


def test_what_cannot_be_rehearsed_is_refused_in_one_line(
    up: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, nowhere = campaign_file(tmp_path, sale()), tmp_path / "none"
    bad, several = tmp_path / "bad.yaml", tmp_path / "several.yaml"
    bad.write_text("id: x")
    several.write_text(f"{good.read_text()}---\n{yaml.safe_dump(sale())}")
    planned(good, up.data_dir)
    for path, data_dir, host, named in (
        (bad, up.data_dir, None, "bad.yaml"),
        (several, up.data_dir, None, "one at a time"),
        (good, up.data_dir, "https://127.0.0.1:1", "not http://HOST:PORT"),
        (good, nowhere, None, "no `doorbuster up` runs"),
        (good, nowhere, up.url, "only with an HS256 secret"),
    ):
        with pytest.raises((Misconfigured, Invalid), match=named) as refused:
            planned(path, data_dir, host)
        assert "\n" not in str(refused.value)
    monkeypatch.setenv("DOORBUSTER_JWT_SECRET", "long enough to sign with")
    with pytest.raises(Misconfigured, match="SERVICE_KEY"):
        planned(good, nowhere, up.url)


async def test_a_deployment_that_does_not_know_us_is_one_line_and_exit_code_2(
    up: Stack, tmp_path: Path
) -> None:
    environment = {"DOORBUSTER_SERVICE_KEY": f"{SERVICE_KEY}-of-others"}
    size = ("--shoppers", "10", "--peak", "10")

    code, said, wrong = rehearse(up, campaign_file(tmp_path, sale()), *size, environment=environment)

    assert (code, said) == (2, "")
    assert "401" in wrong
    assert wrong.count("\n") == 1, wrong
