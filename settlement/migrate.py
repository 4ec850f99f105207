"""Bring the schema up to date."""

from __future__ import annotations

from importlib.resources import files

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from settlement.book import BookUnavailable
from settlement.dsn import complete

_ONE_AT_A_TIME = 0x0D00_2B57  # an advisory lock's key: any number, as long as it is always the same


def migrate(dsn: str) -> None:
    """Bring the PostgreSQL schema at `dsn` up to date. Several at once wait for each other.

    Raises BookUnavailable.
    """
    whole = complete(dsn)
    config = Config()
    config.set_main_option("script_location", str(files("settlement") / "migrations"))
    config.set_main_option("path_separator", "os")
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(whole), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ONE_AT_A_TIME})
            try:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ONE_AT_A_TIME})
                connection.commit()
    except OperationalError as error:
        raise BookUnavailable(str(error.orig)) from error
    finally:
        engine.dispose()
