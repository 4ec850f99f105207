"""What may become of an arrival. Every arrival becomes exactly one of these. Pure."""

from __future__ import annotations

import errno
from enum import IntEnum, StrEnum


class Outcome(StrEnum):
    ADMITTED = "admitted"
    REFUSED = "refused"
    OVERLOADED = "overloaded"
    OTHER = "other"
    """Any other status."""
    ERROR = "error"
    """It was sent, or should have been, and no whole answer came; a Fault says why."""
    UNSENT = "unsent"
    """It stood in the generator's line, and never left it; a Fault says why."""


ANSWERED = (Outcome.ADMITTED, Outcome.REFUSED, Outcome.OVERLOADED, Outcome.OTHER)


class Fault(IntEnum):
    """Why there is no answer. Negative, to stand where an answer's status stands otherwise."""

    PATIENCE = -1
    """No connection was free for it in time."""
    LINE_FULL = -2
    """Too many were waiting for a connection already."""
    CONNECT_REFUSED = -3
    CONNECT_TIMED_OUT = -4
    NO_SOCKET = -5
    """This machine had no port or no file descriptor left: the generator's fault, not the service's."""
    RESET = -6
    CLOSED = -7
    """The connection was closed in an orderly way, before or within the answer."""
    TIMED_OUT = -8
    MALFORMED = -9
    """Not an HTTP/1.1 answer with a Content-Length, or more than the one that was asked for."""
    OTHER = -10


UNSENT = frozenset({Fault.PATIENCE, Fault.LINE_FULL})

_BY_STATUS = {
    201: Outcome.ADMITTED,
    409: Outcome.REFUSED,
    410: Outcome.REFUSED,
    503: Outcome.OVERLOADED,
}


def outcome_of(code: int) -> Outcome:
    """Of a status, or of a Fault."""
    if code < 0:
        return Outcome.UNSENT if code in UNSENT else Outcome.ERROR
    return _BY_STATUS.get(code, Outcome.OTHER)


def fault_of(error: BaseException | None) -> Fault:
    """Of what a connection ended with. None is an orderly end."""
    if error is None:
        return Fault.CLOSED
    if isinstance(error, ConnectionRefusedError):
        return Fault.CONNECT_REFUSED
    if isinstance(error, ConnectionError):
        return Fault.RESET
    if isinstance(error, TimeoutError):
        return Fault.CONNECT_TIMED_OUT
    if isinstance(error, OSError) and error.errno in (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE):
        return Fault.NO_SOCKET
    return Fault.OTHER
