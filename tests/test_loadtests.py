"""The load test itself: it passes against a service that is right, and fails when something is wrong.

Importing Locust patches the standard library for the whole process, so it only runs in one of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from loadtests.answers import Answer, Unexpected
from loadtests.audit import audit_lines, audit_says_less
from loadtests.checks import (
    Reservation,
    check_amended,
    check_bot,
    check_given_up,
    check_greedy,
    check_joined,
    check_look,
    check_nonsense,
    check_order,
    check_order_cancelled,
    check_page,
    check_paid,
    check_paid_with_order,
    check_payment,
    check_replay,
    check_reserved,
    check_sandbox,
)
from loadtests.stages import Sizes, Stage, opening_spike, stage_at
from loadtests.tally import Tally
from loadtests.weights import HABITS
from tests.servers import free_port, listens, wait_until
from tests.stack import SECRETS, Stack, stack

ROOT = Path(__file__).resolve().parents[1]
LOCUST_SECONDS_MAX = 240
"""Far more than a run takes, even on a machine that is busy with other tests."""


# --- The whole, in processes of their own -------------------------------------------------------


@pytest.fixture(scope="module")
def doorbuster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("loadtests"), "--workers", "1") as running:
        yield running


def locust(doorbuster: Stack, *options: str) -> subprocess.CompletedProcess[str]:
    """Locust, headless, with the secrets that it finds in the stack's data directory."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]
    command += ["--headless", "--only-summary", "--host", doorbuster.url]
    command += ["--data-dir", str(doorbuster.data_dir), *options]
    environment = {
        name: value for name, value in os.environ.items() if name not in SECRETS and "LOADTEST" not in name
    }
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LOCUST_SECONDS_MAX,
        check=False,
        env=environment,
        cwd=doorbuster.data_dir,  # it must not matter where Locust is started
    )


def counts(output: str) -> dict[tuple[str, str], int]:
    """The table of outcomes, by request and outcome."""
    rows = re.findall(r"^(\S+(?: \S+)*) {2,}(\S+(?: \S+)*) +(\d+) +[\d.]+%$", output, re.MULTILINE)
    return {(request, outcome): int(count) for request, outcome, count in rows}


SHORT: dict[str, tuple[str, ...]] = {
    "flash-sale": ("--spike-seconds", "5", "--plateau-seconds", "2", "--stock", "5", "--hold-seconds", "2"),
    "presale": (
        *("--spike-seconds", "3", "--plateau-seconds", "1", "--gap-seconds", "1", "--balance-seconds", "4"),
        *("--weights", "balance=30,amend=5,await_opening=1", "--stock", "50"),
    ),
    "trade-in": ("--spike-seconds", "5", "--plateau-seconds", "1", "--stock", "40", "--weights", "order=30"),
    "double-peak": (
        *("--spike-seconds", "2", "--plateau-seconds", "1", "--second-seconds", "3", "--stock", "4"),
    ),
    "soak": ("--plateau-seconds", "6", "--weights", "bot=4,watch=2,await_opening=1"),
    "ramp": ("--steps", "3", "--step-seconds", "2", "--p99-ms", "60000"),
    "sold-out-storm": ("--spike-seconds", "3", "--plateau-seconds", "4"),
}
"""Every scenario, in seconds and with few shoppers."""
AT_ONCE = 3
FEW = ("--warm-up-seconds", "1", "--tail-seconds", "1", "--max-overloaded-share", "1", "--p99-ms", "30000")


def scenario_command(name: str, report: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "loadtests", name, "--users", "12", "--report", str(report)]
    return [*command, *FEW, *SHORT[name], *options]


@pytest.fixture(scope="module")
def played(
    doorbuster: Stack, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """All scenarios, some side by side: most of what each takes is waiting."""
    home = tmp_path_factory.mktemp("played")
    there = ("--host", doorbuster.url, "--data-dir", str(doorbuster.data_dir))
    # One is distributed, and one has a stack of its own.
    where = dict.fromkeys(SHORT, there)
    where |= {"trade-in": (*there, "--processes", "2"), "flash-sale": ("--workers", "1")}
    commands = {name: scenario_command(name, home / f"{name}.html", *where[name]) for name in SHORT}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(commands, pool.map(ended, commands.values()), strict=True))


def ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in SECRETS and "LOADTEST" not in name
    }
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LOCUST_SECONDS_MAX, env=environment, cwd=ROOT
    )


SEEN: dict[str, tuple[tuple[str, str], ...]] = {
    "flash-sale": (("reserve", "held"), ("reserve", "sold_out"), ("pay check", "confirmed")),
    "presale": (("reserve", "held"), ("pay check", "deposit_paid"), ("pay check", "confirmed")),
    "trade-in": (("report order", "reported"), ("reserve", "held")),
    "double-peak": (("reserve", "held"), ("reserve", "sold_out")),
    "soak": (("reserve", "held"), ("bot", "held"), ("bot", "quota_exceeded"), ("watch", "watched")),
    "ramp": (("reserve", "held"), ("pay check", "confirmed")),
    "sold-out-storm": (("reserve", "held"), ("reserve", "sold_out")),
}


@pytest.mark.parametrize("name", SEEN)
def test_every_scenario_passes_and_leaves_a_report(
    name: str, played: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = played[name]

    assert done.returncode == 0, done.stdout + done.stderr
    assert "audit: every invariant holds" in done.stdout
    assert "load test: passed" in done.stdout
    came_to = counts(done.stdout)
    missing = [one for one in SEEN[name] if not came_to.get(one)]
    assert not missing, done.stdout
    assert not [request for request, outcome in came_to if outcome == "unexpected"]
    report = Path(re.findall(r"^report: (.*)$", done.stdout, re.MULTILINE)[0]).read_text()
    assert report.count("<svg") >= 5
    assert "Every invariant holds." in report


def test_the_second_peak_gets_what_is_put_on_sale_for_it(
    played: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    (units,) = re.findall(r"^  phone-hot +(\d+) +(\d+) +(\d+) +(\d+)$", played["double-peak"].stdout, re.M)
    assert int(units[0]) == 8, "four, and four more"


def test_a_ramp_says_how_far_it_got(played: dict[str, subprocess.CompletedProcess[str]]) -> None:
    assert "ramp: every step held; the break is beyond 12 shoppers" in played["ramp"].stdout


def test_a_stack_of_ones_own_is_gone_afterwards(
    played: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    (port,) = re.findall(
        r"^flash-sale: .* at http://127.0.0.1:(\d+)$", played["flash-sale"].stdout, re.MULTILINE
    )
    assert not listens(int(port))


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_load_test_that_is_told_to_end_while_its_stack_starts_leaves_nothing(
    tmp_path: Path, told: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        cwd=ROOT,
    ) as process:
        wait_until(lambda: any(tmp_path.glob("doorbuster-load-*/data")), "its stack starts")
        process.send_signal(told)
        _, said = process.communicate(timeout=LOCUST_SECONDS_MAX)

    assert (process.returncode, said) == (130, "")
    assert not list(tmp_path.glob("doorbuster-load-*"))


def test_a_load_test_that_is_told_to_end_still_audits_and_reports_and_has_not_passed(
    doorbuster: Stack, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    there = ("--host", doorbuster.url, "--data-dir", str(doorbuster.data_dir))
    with subprocess.Popen(
        scenario_command("soak", report, *there, "--plateau-seconds", "600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # the test's own timeout ends it
            if "opens at" in line:
                break
        process.terminate()
        said, _ = process.communicate(timeout=LOCUST_SECONDS_MAX)

    assert "audit: every invariant holds" in said, said
    assert re.search(r"^load test: failed: .*stopped after \d+ of \d{3} s", said, re.MULTILINE), said
    assert process.returncode == 1
    assert f"report: {report}" in said
    assert "<svg" in report.read_text()


def test_a_threshold_that_is_broken_fails_the_run(doorbuster: Stack) -> None:
    done = locust(
        doorbuster,
        *("--peak-users", "5", "--p99-ms", "0", "--min-requests-per-s", "1e6"),
        *("--warm-up-seconds", "0", "--spike-seconds", "2", "--plateau-seconds", "0", "--tail-seconds", "0"),
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^reserve, p99 .* BROKEN$", done.stdout, re.MULTILINE)
    assert re.search(r"^requests .* BROKEN$", done.stdout, re.MULTILINE)
    assert re.search(r"^answers outside the contract .* kept$", done.stdout, re.MULTILINE)
    assert "load test: failed: reserve, p99" in done.stdout


def test_a_ramp_that_breaks_stops_there_and_that_is_its_answer(doorbuster: Stack) -> None:
    done = locust(
        doorbuster,
        *("--scenario", "ramp", "--peak-users", "8", "--steps", "20", "--step-seconds", "2"),
        *("--warm-up-seconds", "1", "--min-requests-per-s", "1e6"),
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "ramp: not even the first held; broke at 1 (step 1):" in done.stdout


def test_locusts_page_starts_whatever_scenario_is_chosen_there(doorbuster: Stack) -> None:
    port = free_port()
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]
    command += ["--host", doorbuster.url, "--data-dir", str(doorbuster.data_dir)]
    command += ["--web-host", "127.0.0.1", "--web-port", str(port)]
    form = {"user_count": 1, "spawn_rate": 1, "host": doorbuster.url, "scenario": "soak", "stock": ""}
    form |= {"peak_users": "5", "warm_up_seconds": "0", "plateau_seconds": "3", "tail_seconds": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            wait_until(lambda: listens(port), "Locust's page is there")
            page = f"http://127.0.0.1:{port}"
            requests.post(f"{page}/swarm", data=form | {"stock": "all of them"}, timeout=30)
            wait_until(
                lambda: requests.get(f"{page}/stats/requests", timeout=30).json()["state"] == "stopped",
                "what cannot be has ended",
            )
            started = requests.post(f"{page}/swarm", data=form, timeout=30)
            assert started.json()["success"], started.text
            assert process.stdout is not None
            said = ""
            for line in process.stdout:  # the test's own timeout ends it
                said += line
                if line.startswith("load test: "):
                    break
        finally:
            process.terminate()
    assert "load test: passed" in said, said
    assert counts(said)["reserve", "held"] > 0


def test_shoppers_whom_the_service_does_not_know_fail_the_load_test(doorbuster: Stack) -> None:
    done = locust(
        doorbuster,
        *("--jwt-secret", "not the secret of the service, whichever", "--peak-users", "10"),
        *("--warm-up-seconds", "0", "--spike-seconds", "2", "--plateau-seconds", "0", "--tail-seconds", "0"),
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert counts(done.stdout)["reserve", "unexpected"] > 0
    assert "POST reserve: 401 unauthenticated" in done.stderr
    assert "load test: failed" in done.stdout


def test_a_load_test_that_cannot_start_fails_and_says_why(doorbuster: Stack) -> None:
    done = locust(doorbuster, "--service-key", "not-the-service-key")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "The load test cannot start: PUT /v1/campaigns/" in done.stderr
    assert "Traceback" not in done.stderr
    assert "load test: passed" not in done.stdout


def test_a_host_that_ends_with_a_slash_is_the_same_host_and_a_report_that_cannot_be_written_is_said(
    doorbuster: Stack, tmp_path: Path
) -> None:
    done = locust(
        doorbuster,
        *("--host", f"{doorbuster.url}/", "--report", str(tmp_path), "--peak-users", "5"),
        *("--warm-up-seconds", "0", "--spike-seconds", "2", "--plateau-seconds", "0", "--tail-seconds", "0"),
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "load test: passed" in done.stdout
    assert f"report: {tmp_path}: cannot be written: Is a directory" in done.stdout
    assert counts(done.stdout)["browse", "changed"] > 0


def test_options_that_cannot_be_together_are_said_without_a_traceback(doorbuster: Stack) -> None:
    done = locust(doorbuster, "--weights", ",".join(f"{habit}=0" for habit in HABITS["flash_sale"]))

    assert done.returncode == 1, done.stdout + done.stderr
    assert "The load test cannot start: --weights: all weights are 0" in done.stderr
    assert "Traceback" not in done.stderr


CANCELLING_AGAIN = """
import random
from loadtests.shopper import Answer, Deal, Reservation, Shopper

asked = []
class Cancelling(Shopper):
    def __init__(self):
        self._order_id, self._sale = "o", type("Sale", (), {"service_key": "key"})
        self._held = Deal(Reservation("r", "sku", 1, "confirmed", None), "token", None, "o")
    def ask(self, request, method, path, check, **_):
        asked.append(check(Answer(200, {}, b'{"order_id": "o", "state": "cancelled"}')))
        return "store_unavailable", None

random.random = lambda: 0.9  # it does not pay first: it has paid before the try that nobody answered
Cancelling().cancel_order()
print(asked)
"""


def test_a_paid_trade_in_is_taken_back_also_where_the_order_is_cancelled_again() -> None:
    """Else the run would miss a sale that the shopper has given back."""
    said = subprocess.run(
        [sys.executable, "-c", CANCELLING_AGAIN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "['taken_back']"


def test_what_is_tested_here_does_not_import_locust() -> None:
    pure = "answers, audit, checks, documents, embedded, pictures, report, scenarios, stages, tally, "
    pure += "thresholds, timeline, weights"
    program = f"import sys; from loadtests import {pure}; sys.exit('locust' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=LOCUST_SECONDS_MAX)


# --- The shape ----------------------------------------------------------------------------------

SPIKE = opening_spike(
    Sizes(peak_users=100, warm_up_seconds=3, spike_seconds=2, plateau_seconds=4, tail_seconds=1)
)


def test_the_shape_is_quiet_then_everybody_at_once_then_fewer() -> None:
    by_second = [stage.users for second in range(60) if (stage := stage_at(SPIKE, second)) is not None]

    assert by_second == [5] * 3 + [100] * 2 + [50] * 4 + [5]


def test_the_shape_has_a_trickle_however_small_the_peak() -> None:
    sizes = Sizes(peak_users=1, warm_up_seconds=1, spike_seconds=1, plateau_seconds=1, tail_seconds=1)

    assert [stage.users for stage in opening_spike(sizes)] == [1, 1, 1, 1]


@pytest.mark.parametrize("tick_s", [2.97, 3.0, 3.04])
def test_the_spike_comes_with_the_tick_nearest_to_the_opening(tick_s: float) -> None:
    assert stage_at(SPIKE, tick_s) == Stage("spike", 2, 100)


def test_a_stage_of_no_seconds_is_left_out() -> None:
    spike = opening_spike(Sizes(peak_users=9, spike_seconds=1))

    assert stage_at(spike, 0.0) == Stage("spike", 1, 9)
    assert stage_at(spike, 1.0) is None


# --- What answers are called, and which must not be ---------------------------------------------

RESERVATION = {
    "id": "sale.one",
    "sku": "phone",
    "quantity": 1,
    "state": "held",
    "due": {"stage": "full", "amount": 5000, "currency": "CNY", "by": "2026-11-04T12:15:00.000Z"},
}
MINE = Reservation("sale.one", "phone", 1, "held", ("full", 5000))
OFFER = {"sku": "phone", "price": 5000, "remaining": 3, "sold_out": False, "per_user": 2}
PAGE = {
    "phase": "open",
    "server_time": "2026-11-04T12:00:00.000Z",
    "opens_at": "2026-11-04T11:59:00.000Z",
    "per_user": 3,
    "offers": [OFFER],
}
LOCATION = {"location": "/v1/reservations/sale.one"}
REPLAY = LOCATION | {"idempotent-replayed": "true"}


def answer(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    content = b"" if body is None else json.dumps(body).encode()
    return Answer(status, {"content-type": "application/json", **(headers or {})}, content)


def problem(status: int, code: str, headers: dict[str, str] | None = None, **changes: Any) -> Answer:
    body = {"type": f"/problems/{code}", "title": "T", "status": status, "detail": "D", "code": code}
    return answer(status, body | changes, {"content-type": "application/problem+json", **(headers or {})})


def mine(**changes: Any) -> dict[str, Any]:
    return RESERVATION | changes


def browsed(answer: Answer) -> str:
    return check_page(answer, None)


def browsed_again(answer: Answer) -> str:
    return check_page(answer, 'W/"1"')


def reserved(answer: Answer) -> str:
    return check_reserved(answer, "phone", key_used_before=False)


def reserved_after_no_answer(answer: Answer) -> str:
    return check_reserved(answer, "phone", key_used_before=True)


def retried(answer: Answer) -> str:
    return check_replay(answer, MINE)


def payment(answer: Answer) -> str:
    return check_payment(answer, MINE)


def paid(answer: Answer) -> str:
    return check_paid(answer, MINE)


def given_up(answer: Answer) -> str:
    return check_given_up(answer, MINE)


def amended(answer: Answer) -> str:
    return check_amended(answer, MINE, 2)


def bot(answer: Answer) -> str:
    return check_bot(answer, 1, 1)


def nonsense(answer: Answer) -> str:
    return check_nonsense(answer, "invalid_request")


def ordered(answer: Answer) -> str:
    return check_order(answer, "order-1")


def order_given_back(answer: Answer) -> str:
    return check_order_cancelled(answer, "order-1", paid=True)


def paid_with_order(answer: Answer) -> str:
    return check_paid_with_order(answer, MINE)


def listed(*reservations: dict[str, Any]) -> Answer:
    return answer(200, {"reservations": list(reservations), "next": None})


ETAG = {"etag": 'W/"1"'}
ASKED = {"payment_id": "sale.one.full", "stage": "full", "amount": 5000}
Check = Callable[[Answer], str]


@pytest.mark.parametrize(
    ("check", "told", "outcome"),
    [
        (browsed, answer(200, PAGE, ETAG), "changed"),
        (browsed_again, answer(304), "unchanged"),
        (reserved, answer(201, mine(), LOCATION), "held"),
        (reserved, problem(409, "sold_out"), "sold_out"),
        (reserved, problem(409, "not_started"), "not_started"),
        (reserved, problem(410, "ended"), "ended"),
        (reserved, problem(429, "rate_limited"), "rate_limited"),
        (reserved, problem(503, "overloaded"), "overloaded"),
        (reserved_after_no_answer, answer(201, mine(), REPLAY), "replayed"),
        (retried, answer(201, mine(), REPLAY), "replayed"),
        (retried, answer(201, mine(state="expired", due=None), REPLAY), "replayed"),
        (check_greedy, problem(409, "quota_exceeded"), "quota_exceeded"),
        (payment, answer(200, ASKED), "asked"),
        (payment, problem(409, "payment_window_closed"), "payment_window_closed"),
        (check_sandbox, answer(200, {"webhook_status": 200}), "delivered"),
        (check_sandbox, answer(200, {"webhook_status": 503}), "webhook_busy"),
        (check_sandbox, answer(404, {"code": "not_found"}), "no_sandbox"),
        (paid, answer(200, mine(state="confirmed", due=None)), "confirmed"),
        (given_up, answer(200, mine(state="cancelled", due=None)), "cancelled"),
        (given_up, problem(409, "wrong_state"), "wrong_state"),
        (amended, answer(200, mine(quantity=2)), "amended"),
        (amended, problem(409, "sold_out"), "sold_out"),
        (check_joined, answer(201, {"state": "waiting", "position": 3}), "waiting"),
        (check_joined, problem(409, "wrong_state"), "wrong_state"),
        (check_look, listed(mine(state="expired", due=None)), "not_yet"),
        (check_look, listed(mine()), "served"),
        (bot, problem(409, "quota_exceeded"), "quota_exceeded"),
        (bot, problem(503, "overloaded"), "overloaded"),
        (nonsense, problem(422, "invalid_request"), "invalid_request"),
        (ordered, answer(201, {"order_id": "order-1", "state": "paid"}), "reported"),
        (order_given_back, answer(200, {"order_id": "order-1", "state": "cancelled"}), "taken_back"),
        (paid_with_order, answer(200, mine(state="confirmed", due=None)), "confirmed"),
        (paid_with_order, problem(409, "wrong_state"), "wrong_state"),
    ],
)
def test_what_the_contract_allows_is_an_outcome(check: Check, told: Answer, outcome: str) -> None:
    assert check(told) == outcome


WRONG: dict[str, tuple[Check, Answer]] = {
    "a 5xx other than 503": (reserved, problem(500, "internal_error")),
    "another request's refusal": (reserved, problem(409, "payment_window_closed")),
    "a code with another's status": (reserved, problem(400, "sold_out")),
    "a code with another's type": (reserved, problem(409, "sold_out", type="/problems/ended")),
    "a problem without detail": (reserved, problem(409, "sold_out", detail=None)),
    "a refusal that is no problem": (reserved, answer(409, {"code": "sold_out"})),
    "a proxy's page": (reserved, Answer(502, {"content-type": "text/html"}, b"<h1>")),
    "half a reservation": (reserved, answer(201, {"id": "sale.one"}, LOCATION)),
    "no object": (reserved, answer(201, [], LOCATION)),
    "no Location": (reserved, answer(201, mine())),
    "more units than asked for": (reserved, answer(201, mine(quantity=2), LOCATION)),
    "a replay of a new key": (reserved, answer(201, mine(), REPLAY)),
    "the same key, another reservation": (retried, answer(201, mine(id="sale.two"), REPLAY)),
    "a replay that does not say so": (retried, answer(201, mine(), LOCATION)),
    "a replay refused": (retried, problem(409, "sold_out")),
    "more than the quota": (check_greedy, answer(201, mine(quantity=3), LOCATION)),
    "sold_out before quota_exceeded": (check_greedy, problem(409, "sold_out")),
    "unchanged since never": (browsed, answer(304)),
    "a page without ETag": (browsed, answer(200, PAGE)),
    "an offer without what remains": (browsed, answer(200, PAGE | {"offers": [{"sku": "phone"}]}, ETAG)),
    "another amount than is due": (payment, answer(200, ASKED | {"amount": 4999})),
    "a webhook refused": (check_sandbox, answer(200, {"webhook_status": 422})),
    "paid and still held": (paid, answer(200, mine())),
    "cancelled and still held": (given_up, answer(200, mine())),
    "amended to what it was": (amended, answer(200, mine())),
    "a place in no line": (check_joined, answer(201, {"state": "held"})),
    "many keys, more than the quota": (bot, answer(201, mine(), LOCATION)),
    "nonsense that is taken": (nonsense, answer(201, mine(), LOCATION)),
    "nonsense that is too much": (nonsense, problem(500, "internal_error")),
    "another order than was reported": (ordered, answer(201, {"order_id": "order-2", "state": "paid"})),
    "an order that is still paid": (order_given_back, answer(200, {"order_id": "order-1", "state": "paid"})),
    "no list": (check_look, answer(200, {"reservations": [3]})),
}


@pytest.mark.parametrize(("check", "told"), WRONG.values(), ids=WRONG)
def test_what_the_contract_does_not_allow_is_a_failure(check: Check, told: Answer) -> None:
    with pytest.raises(Unexpected):
        check(told)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (problem(503, "overloaded", {"retry-after": "7"}), 7),
        (problem(409, "not_started", {"retry-after": "3"}), 3),
        (problem(503, "store_unavailable"), 1),
        (Answer(0, {}, b""), 1),
        (problem(409, "sold_out"), 0),
    ],
)
def test_shoppers_stay_away_as_long_as_they_are_told(told: Answer, seconds: float) -> None:
    assert told.retry_after_s == seconds


# --- The table and the audit --------------------------------------------------------------------


def test_counts_of_workers_add_up() -> None:
    worker, master = Tally(), Tally()
    master.count("reserve", "sold_out")
    for outcome in ("held", "sold_out", "sold_out"):
        worker.count("reserve", outcome)

    master.add(worker.take())
    master.add(worker.take())  # nothing new since

    assert counts("\n".join(master.table())) == {("reserve", "sold_out"): 3, ("reserve", "held"): 1}


def audit(sold: int, *violations: dict[str, str]) -> dict[str, Any]:
    offers = [{"sku": "phone", "stock": 9, "held": 0, "sold": sold, "available": 9 - sold}]
    found = [{"id": "sale", "offers": offers, "violations": list(violations)}]
    return {"ok": not violations, "campaigns": found}


def test_the_audit_is_readable() -> None:
    broken = audit_lines(audit(9, {"invariant": "I2", "detail": "phone: 10 held + sold > 9 stock"}))

    assert broken[-2:] == ["  VIOLATION I2: phone: 10 held + sold > 9 stock", "audit: 1 violation"]
    assert audit_lines(audit(9))[-1] == "audit: every invariant holds"


def test_books_that_agree_and_have_lost_a_sale_are_wrong() -> None:
    assert audit_says_less(audit(4), confirmed=5)
    assert not audit_says_less(audit(5), confirmed=5)
