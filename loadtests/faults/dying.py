"""A role that kills itself at an exact point: `python -m loadtests.faults.dying MODULE:CLASS.METHOD N ROLE…`.

The N-th call of the method is the process' last moment: it gets SIGKILL before the call has done anything.
The product itself has no such points, and nothing of this is installed with it.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from itertools import count
from typing import Any


def arm(point: str, calls: int) -> None:
    """Have the so-maniest call of `point`, module:Class.method, kill this process."""
    module, _, path = point.partition(":")
    owner_name, _, method_name = path.partition(".")
    owner = getattr(import_module(module), owner_name)
    method = getattr(owner, method_name)
    numbers = count(1)

    def last(*given: Any, **named: Any) -> Any:
        if next(numbers) >= calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*given, **named)

    setattr(owner, method_name, last)


def main() -> None:
    point, calls, *arguments = sys.argv[1:]
    arm(point, int(calls))
    sys.argv = ["doorbuster", *arguments]
    from doorbuster.cli import main as doorbuster

    doorbuster()


if __name__ == "__main__":
    main()
