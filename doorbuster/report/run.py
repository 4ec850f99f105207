"""Makes the report, and writes it where it is wanted."""

from __future__ import annotations

import logging
from pathlib import Path

from doorbuster import bootstrap
from doorbuster.errors import Misconfigured
from doorbuster.report.shown import Json
from doorbuster.report.tables import tables
from doorbuster.settings import Settings
from reservation.outcomes import Refusal


class NotWritten(Misconfigured):
    """The report could not be written there. The message is one line."""


async def run_report(settings: Settings, campaign: str, earlier: str | None) -> Json | Refusal:
    """The report as JSON has it, or which campaign there is none of. Raises BookUnavailable."""
    found = await bootstrap.reporter(settings).report(campaign, earlier)
    return found if isinstance(found, Refusal) else found.to_json()


def write_page(report: Json, path: Path) -> None:
    """Write it as one HTML file that needs nothing else. Raises NotWritten."""
    # It says how long it looks for fonts, the first time, and where it keeps them.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from doorbuster.report.page import page  # with what draws, which takes its time

    _write(path, page(report), encoding="utf-8")


def write_tables(report: Json, directory: Path) -> list[Path]:
    """Write it as CSV files; which. Raises NotWritten."""
    written = []
    for name, content in tables(report).items():
        # With a mark at the beginning, or Excel takes it for another encoding.
        _write(directory / name, content, encoding="utf-8-sig")
        written.append(directory / name)
    return written


def _write(path: Path, content: str, encoding: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding, newline="")
    except OSError as error:
        raise NotWritten(f"cannot write {path}: {error.strerror}") from None
