"""What cannot be played is refused in one line, and a round that proves nothing counts for nothing."""

from __future__ import annotations

import pytest

from loadtests.faults.__main__ import main
from loadtests.faults.judge import Verdict
from loadtests.faults.matrix import FAULTS
from loadtests.faults.round import Outcome


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--rounds 0", "--rounds must be 1 or more"),
        ("--rate 0", "--rate must be more than 0"),
        ("--seconds -1", "--seconds must be more than 0"),
        ("--only ,", "--only names no fault"),
        ("--only redis_emptied --quick", "--only and --quick: one of them says which"),
    ],
)
def test_options_that_play_nothing_are_refused(
    asked: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(asked.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m loadtests.faults: error: {said}"


def test_a_name_that_no_fault_has_is_answered_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "redis_killed, redis_busy"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"faults: no such fault: redis_killed; there are {', '.join(FAULTS)}\n"


def test_a_round_after_which_nothing_was_acknowledged_proves_nothing() -> None:
    assert Outcome("redis_busy", "redis_busy/1", Verdict(), 0.1, 0.2, 0.3, {}, {}).ok
    round_ = Outcome("redis_busy", "redis_busy/1", Verdict(), None, 0.2, 0.3, {}, {})
    assert not round_.ok
    assert round_.missed == "nothing was acknowledged once it was over"
