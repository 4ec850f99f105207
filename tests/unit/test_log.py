"""Every line of a log is one JSON object, whoever writes it, and says nothing about who somebody is."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from reservation.ids import ReservationId
from reservation.tracing import trace_id_of

SOME = ReservationId("sale", "abcdefgh12345678")
PREPARE = """
import asyncio, logging, sys, threading, warnings, structlog
from doorbuster.log import configure_logs, log_unhandled
from reservation.ids import ReservationId
from reservation.outcomes import StoreUnavailable
from reservation.tracing import NO_TRACER, SpanKind, operation

log = structlog.get_logger("ours")

def fail():
    user = "ann"
    raise ValueError("no such user: ann")

"""


def lines(code: str, level: str = "info", *, fails: bool = False) -> list[dict[str, Any]]:
    """What a process that does this writes to standard error."""
    program = f'{PREPARE}\nconfigure_logs("worker", "{level}")\n{textwrap.dedent(code)}'
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) is fails, done.stderr
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_says_when_what_and_who_of_us() -> None:
    (line,) = lines('log.info("waiting", attempt=1)')
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("pid") > 0
    assert line == {"event": "waiting", "attempt": 1, "level": "info", "role": "worker"}


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_below_the_level_is_not_said(level: str, heard: list[str]) -> None:
    found = lines('for name in ("debug", "info", "warning", "error"): getattr(log, name)("x")', level)
    assert [line["level"] for line in found] == heard


def test_libraries_say_theirs_in_the_same_way_and_nothing_below_a_warning() -> None:
    found = lines(
        """
        for name in ("aiohttp.server", "asyncio", "somebody"):
            logging.getLogger(name).warning("two\\nlines of %s", name)
            logging.getLogger(name).info("chatter")
        logging.getLogger("aio_pika").error("again, with a traceback")
        warnings.warn("that is old")
        """,
        "debug",
    )
    assert [line.get("logger") for line in found] == ["aiohttp.server", "asyncio", "somebody", "py.warnings"]
    assert {(line["level"], line["role"]) for line in found} == {("warning", "worker")}
    assert found[0]["event"] == "two\nlines of aiohttp.server"


def test_an_exception_is_fields_without_variables_or_words_that_may_quote_somebody() -> None:
    code = """
        for say in (log.exception, logging.getLogger("aiohttp.server").exception):
            try:
                try:
                    fail()
                except ValueError as error:
                    raise StoreUnavailable("the store is away") from error
            except StoreUnavailable:
                say("bad")
    """
    for line in lines(code):
        assert line["event"] == "bad"
        ours, cause = line["exception"]
        assert (ours["type"], ours["message"]) == (
            "reservation.outcomes.StoreUnavailable",
            "the store is away",
        )
        assert (cause["type"], cause.get("message")) == ("builtins.ValueError", None)
        assert cause["frames"][-1].endswith(" fail")
        assert "ann" not in json.dumps(line)
    for line in lines(code, "debug"):
        assert line["exception"][1]["message"] == "no such user: ann"


def test_what_nobody_caught_is_a_line_too() -> None:
    found = lines(
        """
        async def main():
            asyncio.get_running_loop().set_exception_handler(log_unhandled)
            async def failing(): fail()
            def called(user): fail()
            task = asyncio.create_task(failing())
            asyncio.get_running_loop().call_soon(called, "ann")
            await asyncio.sleep(0.01)
            del task

        class Dying:
            def __del__(self): fail()

        asyncio.run(main())
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        Dying()
        fail()
        """,
        fails=True,
    )
    expected = ["unhandled", "unhandled", "thread_ended_by_exception", "unraisable", "ended_by_exception"]
    assert [line["event"] for line in found] == expected
    assert {line["exception"][0]["type"] for line in found} == {"builtins.ValueError"}
    assert "ann" not in json.dumps(found)


def test_a_line_names_the_trace_of_what_is_being_done() -> None:
    named, other = lines(
        f"""
        with operation(NO_TRACER, "lapse", SpanKind.INTERNAL, ReservationId{tuple(SOME)}):
            log.info("x")
        log.info("y")
        """
    )
    assert named["trace_id"] == f"{trace_id_of(SOME):032x}"
    assert "trace_id" not in other


def test_in_a_terminal_it_reads_well() -> None:
    ours, theirs = pty.openpty()
    program = f"""{PREPARE}
configure_logs("worker")
log.info("waiting", attempt=1)
try:
    fail()
except ValueError:
    log.exception("bad")
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # it has closed the terminal
                break
            if not part:
                break
            said += part
    os.close(ours)
    assert process.returncode == 0
    text = said.decode()
    assert "waiting" in text
    assert "ValueError: no such user: ann" in text
    assert not text.startswith("{")
