"""Traces: all that happened to a reservation, from the request that made it to its last settled row.

No context travels. A trace's id is derived from its reservation's, the id of the span that made a version
from the version, and whether a reservation is sampled can be read off its digest. So gateways, relays,
workers and sweepers agree on all three, whatever way an event took, and those who were made together stay
together.

The parts tell of what is over, as a `Span`, and only where somebody keeps it. Who keeps it is wired in:
nothing here knows OpenTelemetry.
"""

from __future__ import annotations

import random
import re
import string
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple, Protocol

from reservation.ids import ReservationId

MADE = 1
"""The version that a reservation begins with. What happens to it later hangs on the span that made it."""
CAMPAIGN, OUTCOME = "doorbuster.campaign", "doorbuster.outcome"
_SIGNS = "".join(sorted(string.ascii_letters + string.digits + "-_"))
"""Of a digest, in the order in which text is compared."""
_PLACES = 8
_AFTER_ALL = "~"
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)


Attributes = Mapping[str, str | int | float]
"""Nothing that says who it was: no user, token, key, address or provider's reference."""


class SpanKind(StrEnum):
    """A span's side of what it is about, as in OpenTelemetry."""

    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    INTERNAL = "internal"


class SpanLink(NamedTuple):
    """A span of somebody else's trace."""

    trace_id: int
    span_id: int


@dataclass(frozen=True, slots=True)
class Span:
    """What was done, once it is over. Times are in ns since 1970."""

    name: str
    kind: SpanKind
    trace_id: int
    start_ns: int
    attributes: Attributes
    parent_id: int = 0
    """0 is a span that the trace begins with."""
    span_id: int = field(default_factory=lambda: new_id(64))
    end_ns: int = field(default_factory=time.time_ns)
    link: SpanLink | None = None
    failed: bool = False


class Tracer(Protocol):
    """Who keeps traces."""

    @property
    def below(self) -> str:
        """The digests that come before it, as text, are sampled. Empty: none is."""
        ...

    @property
    def ratio(self) -> float:
        """The share of requests about no reservation that is sampled."""
        ...

    def tell(self, span: Span) -> None:
        """Keep it. Never waits, and never fails: what there is no room for is dropped."""
        ...


class _Nobody:
    """Traces are off."""

    below = ""
    ratio = 0.0

    def tell(self, span: Span) -> None:
        pass


NO_TRACER: Tracer = _Nobody()


def below(ratio: float) -> str:
    """The text that this share of all digests comes before, which are as evenly spread as any hash."""
    if ratio >= 1:
        return _AFTER_ALL
    share = round(ratio * len(_SIGNS) ** _PLACES)
    digits = (share // len(_SIGNS) ** place % len(_SIGNS) for place in reversed(range(_PLACES)))
    return "".join(_SIGNS[digit] for digit in digits) if share else ""


def trace_id_of(reservation_id: ReservationId) -> int:
    """The trace of a reservation's whole life."""
    return _derived(str(reservation_id), 128)


def span_id_of(reservation_id: ReservationId, version: int) -> int:
    """The span of the script run that made this version: there is one such run, and whatever the version
    led to hangs on it."""
    return _derived(f"{reservation_id}.{version}", 64)


def _derived(name: str, bits: int) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=bits // 8, person=b"doorbuster trace").digest())


def new_id(bits: int) -> int:
    """An id of a trace (128 bits) or a span (64) that nothing derives. Never 0."""
    return random.getrandbits(bits) or 1


def read_traceparent(text: str | None) -> SpanLink | None:
    """The caller's span, as W3C Trace Context writes it; None where it says none."""
    match = _TRACEPARENT.fullmatch(text) if text else None
    return SpanLink(int(match[1], 16), int(match[2], 16)) if match else None


class Operation:
    """A request, or a role's step, as it is being done: what is found out on the way."""

    __slots__ = (
        "_caller",
        "_chance",
        "_span_id",
        "_trace_id",
        "after",
        "outcome",
        "reservation",
        "started_ns",
    )

    def __init__(
        self, reservation: ReservationId | None = None, after: int = MADE, caller: str | None = None
    ) -> None:
        """`caller` is what a request had as its traceparent, where anybody may say anything. So it never has
        a request sampled, and a reservation's trace is only linked to it."""
        self.reservation = reservation
        self.after = after
        """The version of the reservation that led here; 0: it was not there before."""
        self.outcome = ""
        self.started_ns = time.time_ns()
        self._caller = caller
        self._chance = -1.0
        self._trace_id = 0
        self._span_id = 0

    @property
    def caller(self) -> SpanLink | None:
        return read_traceparent(self._caller)

    @property
    def trace_id(self) -> int:
        """The reservation's, or else the caller's, or else one of its own."""
        if self.reservation is not None:
            return trace_id_of(self.reservation)
        if not self._trace_id:
            caller = self.caller
            self._trace_id = caller.trace_id if caller is not None else new_id(128)
        return self._trace_id

    @property
    def span_id(self) -> int:
        if not self._span_id:
            self._span_id = new_id(64)
        return self._span_id

    def is_sampled(self, tracer: Tracer) -> bool:
        """As the reservation's digest says; by chance, without a reservation."""
        if not tracer.below:
            return False
        if self.reservation is not None:
            return self.reservation.digest < tracer.below
        if self._chance < 0:
            self._chance = random.random()  # noqa: S311
        return self._chance < tracer.ratio

    def over(self, name: str, kind: SpanKind, attributes: Attributes, *, failed: bool = False) -> Span:
        """Its span. It has just ended."""
        caller, parent_id = self.caller, 0
        of: Attributes = {}
        if self.reservation is not None:
            of = about(self.reservation)
            parent_id = span_id_of(self.reservation, self.after) if self.after else 0
        elif caller is not None:
            parent_id, caller = caller.span_id, None
        return Span(
            name,
            kind,
            self.trace_id,
            self.started_ns,
            {**of, **attributes},
            parent_id,
            self.span_id,
            link=caller,
            failed=failed,
        )


_current: ContextVar[Operation | None] = ContextVar("operation", default=None)


def begin(caller: str | None = None) -> Operation:
    """What is done from here on is done for this request, in tasks that it starts too."""
    operation = Operation(caller=caller)
    _current.set(operation)
    return operation


def current() -> Operation | None:
    """What is being done here, if it is part of anything."""
    return _current.get()


def concerns(reservation_id: ReservationId, *, after: int = MADE) -> None:
    """What is being done here is about this reservation; `after` as in Operation."""
    operation = _current.get()
    if operation is not None:
        operation.reservation, operation.after = reservation_id, after


@contextmanager
def operation(
    tracer: Tracer,
    name: str,
    kind: SpanKind,
    reservation_id: ReservationId | None,
    after: int = MADE,
    **attributes: str | int | float,
) -> Iterator[Operation]:
    """A step about one reservation, as long as the block."""
    doing, before = Operation(reservation_id, after), _current.get()
    _current.set(doing)
    failed = True
    try:
        yield doing
        failed = False
    finally:
        _current.set(before)  # not by a token: who closes a coroutine may do so from another context
        if reservation_id is not None and reservation_id.digest < tracer.below:
            outcome = {OUTCOME: doing.outcome} if doing.outcome else {}
            tracer.tell(doing.over(name, kind, attributes | outcome, failed=failed))


def script_run(
    name: str,
    reservation_id: ReservationId,
    made: int,
    started_ns: int,
    parent_id: int,
    attributes: Attributes,
    *,
    failed: bool = False,
) -> Span:
    """A run of a script of the store, which has just ended, and `made` this version, or 0: none."""
    return Span(
        name,
        SpanKind.CLIENT,
        trace_id_of(reservation_id),
        started_ns,
        {"db.system.name": "redis", **about(reservation_id), **attributes},
        parent_id,
        span_id_of(reservation_id, made) if made else new_id(64),
        failed=failed,
    )


def about(reservation_id: ReservationId) -> Attributes:
    """What a reservation's spans have in common."""
    return {CAMPAIGN: reservation_id.campaign, "doorbuster.reservation": str(reservation_id)}
