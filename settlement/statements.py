"""The SQL statements, each in a file of its own name."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """The statement in sql/<name>.sql."""
    return (files("settlement") / "sql" / f"{name}.sql").read_text("utf-8")
