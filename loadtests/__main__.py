"""`python -m loadtests SCENARIO`: a scenario against a stack of its own, or against --host; headless.

Whatever other options there are go to Locust as they stand: `locust -f loadtests/locustfile.py --help` lists
them. `make load` runs this. Exits as Locust does: 0 when the run passed, 1 when not, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from doorbuster.supervisor import die_with_parent, end_as_after_ctrl_c
from loadtests.embedded import NotStarted, embedded
from loadtests.scenarios import FLASH_SALE, SCENARIOS

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
REPORTS = Path(".load")


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if find_spec("locust") is None:
        print("loadtests: Locust is not installed: pip install 'doorbuster[load]'", file=sys.stderr)
        return 2
    if options.users is not None and options.users < 1:
        parser.error("argument --users: must be at least 1")
    scenario = SCENARIOS[options.scenario]
    report = options.report
    if report is None:
        report = str(REPORTS / f"{scenario.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.html")
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--scenario", scenario.name]
    command += ["--report", report]
    if not options.page:
        command += ["--headless", "--only-summary"]
    if options.users is not None:
        command += ["--peak-users", str(options.users)]
    # Told to end, also while its stack starts, it takes that down first.
    end_as_after_ctrl_c()
    try:
        return _play(command, options, others)
    except KeyboardInterrupt:
        return 130


def _play(command: list[str], options: argparse.Namespace, others: list[str]) -> int:
    """Run the command against --host, or a stack of its own. Raises KeyboardInterrupt when told to end before
    there is a load."""
    scenario = SCENARIOS[options.scenario]
    with ExitStack() as stack:
        host, data_dir = options.host, options.data_dir
        if host is None:
            print("starting a stack of its own", flush=True)
            try:
                running = stack.enter_context(embedded(options.workers))
            except NotStarted as error:
                print(f"loadtests: {error}", file=sys.stderr)
                return 1
            host, data_dir = running.url, str(running.data_dir)
            # Its own secrets, and none that the environment has for another one.
            for name in ("DOORBUSTER_JWT_SECRET", "DOORBUSTER_SERVICE_KEY"):
                os.environ.pop(name, None)
        command += ["--host", host]
        if data_dir is not None:
            command += ["--data-dir", data_dir]
        users = options.users or scenario.sizes.peak_users
        print(f"{scenario.name}: {scenario.about} {users} shoppers at the peak, at {host}", flush=True)
        return _run([*command, *others])


def _run(command: list[str]) -> int:
    """Locust, which ends by itself; told to end, it still concludes, and we wait for that.

    It hears of it as of a Ctrl-C: while a shape goes on, Locust 2.47 has no handler for SIGTERM, and dies.
    """
    process = subprocess.Popen(command, preexec_fn=die_with_parent(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal has told Locust as well
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {one.name:<16}{one.about}" for one in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description=f"{__doc__}\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not ours is Locust's
    )
    add = parser.add_argument
    add("scenario", nargs="?", choices=list(SCENARIOS), default=FLASH_SALE.name)
    add("--host", help="http://HOST:PORT of what is to be tested; left out, a stack is started for it.")
    add("--users", type=int, help="Shoppers at the peak; the scenario's, if left out.")
    add("--report", help="Write the HTML report here; left out, into .load/. Empty: write none.")
    add("--page", action="store_true", help="With Locust's page, instead of headless.")
    add("--workers", type=int, default=2, help="Gateway processes of a stack of its own.")
    add("--data-dir", help="Of an `up` that --host is, to find its secrets.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
