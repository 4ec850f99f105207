"""What the demo leaves behind: the three campaigns' reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doorbuster.demo.report import Played
from doorbuster.demo.service import DemoFailed, Service
from doorbuster.demo.stage import come_true
from doorbuster.report.run import run_report, write_page, write_tables
from doorbuster.report.shown import Json
from reservation.outcomes import Refusal

_WITH_TABLES = "singles-day-phones"


async def write_reports(service: Service, played: Sequence[Played], directory: Path) -> list[Path]:
    """A page for each campaign, and the presale's tables. Raises DemoFailed, NotWritten."""
    written = []
    for one in played:
        found = await _report(service, one)
        page = directory / f"{one.campaign}.html"
        write_page(found, page)
        written.append(page)
        if one.campaign == _WITH_TABLES:
            write_tables(found, directory / one.campaign)
            written.append(directory / one.campaign)
    return written


async def _report(service: Service, played: Played) -> Json:
    """The report, once traffic has come into the book: that takes a few seconds."""
    found: Json | Refusal | None = None

    async def is_whole() -> bool:
        nonlocal found
        found = await run_report(service.settings, played.campaign, None)
        requests = 0 if isinstance(found, Refusal) else found["summary"]["requests"]
        return (requests or 0) >= played.requests

    await come_true(is_whole)
    if found is None or isinstance(found, Refusal):
        raise DemoFailed(f"there is no report of {played.campaign}")
    return found
