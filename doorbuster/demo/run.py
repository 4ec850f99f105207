"""The demo from beginning to end: the service, three campaigns, the audit."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import aiohttp

from doorbuster.demo import flash, presale, trade_in
from doorbuster.demo.log import View
from doorbuster.demo.outside import Outside
from doorbuster.demo.report import Played, print_verdict
from doorbuster.demo.reports import write_reports
from doorbuster.demo.service import DemoFailed, Service, running_service
from doorbuster.demo.stage import Stage

CONNECTIONS_MAX = 200


async def run_demo(shoppers: int, seed: int, reports: Path) -> int:
    """Run the demo, and write its reports into a directory; 0 when every invariant held. Raises DemoFailed,
    NotWritten."""
    started = time.monotonic()
    print(f"Doorbuster demo: a flash sale, a presale and a trade-in; seed {seed}")
    outside = Outside()
    with tempfile.TemporaryDirectory(prefix="doorbuster-demo-") as home:
        async with outside.open(), running_service(Path(home) / "data", outside.url) as service:
            outside.sandbox_url = service.url
            print(f"  embedded Redis and PostgreSQL, two gateway processes, ready at {service.url}")
            try:
                played = await _play(service, outside, shoppers, seed)
                written = await write_reports(service, played, reports)
            except aiohttp.ClientError as error:
                raise DemoFailed(f"the service broke off: {type(error).__name__}: {error}") from error
    violations = [violation for one in played for violation in one.violations]
    verdict = print_verdict(violations, time.monotonic() - started)
    print("\nwhat the merchandiser reads the morning after, to be opened in a browser (and a spreadsheet):")
    print("\n".join(str(path) for path in written))
    return verdict


async def _play(service: Service, outside: Outside, shoppers: int, seed: int) -> list[Played]:
    """The flash sale, for which the machine is needed whole; then the others, side by side."""
    buyers, owners = max(30, min(300, shoppers // 10)), max(30, min(300, shoppers // 12))
    stock = max(10, shoppers // 10)
    async with (
        aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX)) as session,
        aiohttp.ClientSession(service.url) as watcher,  # does not queue behind the shoppers
    ):

        def stage(document: View) -> Stage:
            return Stage(service, outside, session, watcher, document, seed)

        print(f"\nFlash sale: {stock:,} units, {shoppers:,} shoppers, all at once")
        played = [await flash.play(stage(flash.document(stock)), shoppers)]
        _say(played[0])
        print(f"\nPresale with {buyers} buyers, and trade-in for {owners} owners, side by side")
        played += await asyncio.gather(
            presale.play(stage(presale.document(buyers)), buyers),
            trade_in.play(stage(trade_in.document(owners)), owners),
        )
        for name, one in zip(("Presale", "Trade-in"), played[1:], strict=True):
            print(f"\n{name}")
            _say(one)
    return played


def _say(played: Played) -> None:
    print("\n".join(played.lines), flush=True)
