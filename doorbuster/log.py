"""Logs: readable in a terminal, one JSON object a line elsewhere; to standard error.

They say nothing about who somebody is: no user, token, key, address, provider's reference or body. What an
exception of another's making says may quote any of these, so that is left out but at level debug.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import structlog

from reservation.outcomes import Fault
from reservation.tracing import current

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FRAMES_MAX = 20
"""Of a traceback: the last ones."""
_SAY_NO_NAMES = (Fault, OSError)
"""Exceptions whose words are ours, or the system's."""
_log = structlog.get_logger(__name__)
Fields = structlog.types.EventDict


def configure_logs(role: str, level: str = "info") -> None:
    """Set up structlog and the standard library's logging for a process of this role. `level` is one of
    LEVELS; of libraries, nothing below a warning is logged."""
    terminal = sys.stderr.isatty()
    pid, in_full = os.getpid(), level == "debug"

    def where(_: object, __: str, fields: Fields) -> Fields:
        fields.update(role=role, pid=pid)
        operation = current()
        if operation is not None:
            fields["trace_id"] = f"{operation.trace_id:032x}"
        return fields

    def exception(_: object, __: str, fields: Fields) -> Fields:
        error = _error_of(fields.pop("exc_info", None))
        if error is not None:
            fields["exception"] = [_described(one, in_full=in_full) for one in _chain(error)]
        return fields

    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        where,
    ]
    last: list[structlog.types.Processor] = [
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    ]
    if not terminal:
        last = [exception, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(True)
    # They log each attempt to reconnect, with a traceback; we log that we wait.
    for noisy in ("aio_pika", "aiormq", "psycopg.pool", "opentelemetry"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if not terminal:
        _log_what_nobody_caught()


def log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What an event loop does with an exception that nobody waits for. asyncio's own words would quote it,
    and what a callback was called with."""
    what = str(context.get("message", "")).partition("(")[0]
    _log.error("unhandled", what=what, exc_info=context.get("exception"))


def _log_what_nobody_caught() -> None:
    def ended(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        _log.critical("ended_by_exception", exc_info=error)

    def thread_ended(found: threading.ExceptHookArgs) -> None:
        _log.error("thread_ended_by_exception", exc_info=found.exc_value)

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        _log.error("unraisable", exc_info=found.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = ended, thread_ended, unraisable


def _error_of(exc_info: object) -> BaseException | None:
    """The exception that a line is about, as loggers are given it."""
    if exc_info is True:
        return sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _chain(error: BaseException) -> list[BaseException]:
    """It, and what led to it."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return found


def _described(error: BaseException, *, in_full: bool) -> dict[str, Any]:
    """An exception as fields: {type, message, frames}, without any variables."""
    kind = type(error)
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    described: dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
    if in_full or isinstance(error, _SAY_NO_NAMES):
        described["message"] = str(error)
    described["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return described
