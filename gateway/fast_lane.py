"""The fast lane: for the one request that everybody sends in the same second.

aiohttp parses every request. One that reserves, and that is in no way unusual, is then answered
without a task, a router and a response object of its own: its token, its body and its terms have been
seen before and are looked up, it joins a group in the store, and the answer is filled in where it
was made beforehand. Whatever is not so goes, or comes back, to the ordinary lane, untouched: so
there is one place where the rules are, and this one knows none of them.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import orjson
from aiohttp import EMPTY_PAYLOAD, HttpVersion11, StreamReader
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, RawRequestMessage

from gateway.admission import Admission, overloaded
from gateway.auth import Authenticator, User
from gateway.endpoint import decode_json, store_unavailable
from gateway.granted import Granted
from gateway.problems import Problem
from gateway.request_spans import tell_of_request, trace_id_text
from gateway.reservations import ReserveBody, is_idempotency_key
from gateway.tally import Tally
from gateway.traffic import Traffic
from reservation.attempt import Unanswered
from reservation.campaign import Campaign
from reservation.catalog import Catalog
from reservation.desk import Desk, refusal_of
from reservation.ids import ReservationId, digest_of
from reservation.kernel import Store, Terms
from reservation.outcomes import Fault, Outcome, Refusal, StoreUnavailable
from reservation.tracing import MADE, NO_TRACER, OUTCOME, Operation, SpanKind, Tracer
from reservation.validation import Invalid, parse

ROUTE = "/v1/campaigns/{campaign}/reservations"
_BEFORE, _AFTER = "/v1/campaigns/", "/reservations"
_BODY_BYTES_MAX = 256
_READY_MAX = 4_096


class Way(Protocol):
    """The connection that a request came on."""

    def answer(self, response: bytes) -> None:
        """Send it, if anybody is still there."""
        ...

    def hand_back(self, message: RawRequestMessage, payload: StreamReader) -> None:
        """Let the ordinary lane have the request."""
        ...


class _Ready(NamedTuple):
    """All that can be known of a request before it comes."""

    campaign: Campaign
    terms: Terms
    granted: Granted


class FastLane:
    """Takes the requests that it can answer."""

    def __init__(
        self,
        store: Store,
        desk: Desk,
        catalog: Catalog,
        authenticator: Authenticator,
        admission: Admission,
        traffic: Traffic,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.tracer = tracer
        self._sampled_below = tracer.below
        self._store = store
        self._desk = desk
        self._catalog = catalog
        self._authenticator = authenticator
        self._ready: dict[tuple[str, str | None, bytes], _Ready] = {}
        self.admission = admission
        self.tally = Tally(ROUTE, "POST", traffic)

    def take(self, message: RawRequestMessage, payload: StreamReader, way: Way) -> bool:
        """Whether the request is now this lane's. Reads nothing of it that another could not read again."""
        if message.method != "POST" or message.should_close or message.version != HttpVersion11:
            return False
        headers, body = message.headers, _whole_body(payload)
        authorization, keys = headers.getall("Authorization", ()), headers.getall("Idempotency-Key", ())
        if body is None or len(authorization) != 1 or len(keys) != 1 or self.admission.draining:
            return False
        if headers.get("Content-Type") != "application/json" or message.chunked:
            return False
        if "Content-Encoding" in headers or "Expect" in headers:
            return False
        user, key = self._authenticator.at_once(authorization[0]), keys[0]
        if user is None or not is_idempotency_key(key):
            return False
        ready = self._ready.get((message.path, user.tier, body)) or self._prepare(message.path, user, body)
        if ready is None:
            return False
        if ready.campaign is not self._catalog.known(ready.campaign.id):  # it has changed
            self._ready.clear()
            return False
        digest = digest_of(ready.campaign.id, user.id, key)
        closed = self.admission.closed_to_reservations
        self.admission.requests += 1
        # All that a request that is not sampled pays for traces.
        kind = _Traced if digest < self._sampled_below else _Asked
        asked = kind(self, ready, digest, user, message, payload, way)
        if closed:
            asked.turn_away()
        else:
            self._store.ask(ready.terms, digest, user.id, asked)
        return True

    def _prepare(self, path: str, user: User, body: bytes) -> _Ready | None:
        """What can be known of such requests; None if they are for the ordinary lane."""
        if not path.startswith(_BEFORE) or not path.endswith(_AFTER) or len(body) > _BODY_BYTES_MAX:
            return None
        campaign = self._catalog.known(path[len(_BEFORE) : -len(_AFTER)])
        try:
            asked = parse(ReserveBody, decode_json(body))
        except (Problem, Invalid):
            return None
        if campaign is None or asked.sku not in campaign.offers or asked.order_id is not None:
            return None
        terms, why_not = self._desk.usual_terms(campaign, user.tier, asked.sku, asked.quantity)
        if why_not is not None:
            return None
        if len(self._ready) >= _READY_MAX:
            self._ready.clear()
        ready = self._ready[path, user.tier, body] = _Ready(campaign, terms, Granted(terms, campaign))
        return ready


class _Asked:
    """A request whose answer the store is about to give."""

    __slots__ = ("_digest", "_lane", "_message", "_payload", "_ready", "_started", "_user", "_way")
    span_id = 0

    def __init__(
        self,
        lane: FastLane,
        ready: _Ready,
        digest: str,
        user: User,
        message: RawRequestMessage,
        payload: StreamReader,
        way: Way,
    ) -> None:
        self._lane = lane
        self._ready = ready
        self._digest = digest
        self._user = user
        self._message = message
        self._payload = payload
        self._way = way
        self._started = time.perf_counter()

    def answered(self, outcome: Outcome, now_ms: int, record: bytes | None) -> None:
        if outcome is Outcome.MOVED and record is None:
            user = orjson.dumps(self._user.id)
            self._answer("held", 201, self._ready.granted.response(self._digest, user, now_ms))
        elif outcome in _REFUSALS:
            self._refuse(outcome, _refused(refusal_of(outcome, self._ready.campaign, now_ms)))
        else:
            self._hand_back()

    def turn_away(self) -> None:
        """There is no room for it."""
        self._refuse("overloaded", _OVERLOADED)

    def failed(self, error: Exception) -> None:
        if not isinstance(error, Fault):
            self._hand_back()  # a defect of ours, which the ordinary lane knows how to say
            return
        # Not once more: it would wait for a store that is away, or it may have been made.
        sent = isinstance(error, StoreUnavailable) and error.sent
        trace_id = trace_id_text(Operation(ReservationId(self._ready.campaign.id, self._digest)))
        self._refuse(Outcome.STORE_UNAVAILABLE, _MAYBE_MADE if sent else _NOT_MADE, trace_id.encode())

    def _hand_back(self) -> None:
        self._lane.admission.requests -= 1
        self._way.hand_back(self._message, self._payload)

    def _refuse(self, outcome: str, problem: tuple[int, bytes], *filled_in: bytes) -> None:
        status, response = problem
        self._answer(outcome, status, response % (rfc822_formatted_time().encode(), *filled_in))

    def _answer(self, outcome: str, status: int, response: bytes) -> None:
        lane, campaign = self._lane, self._ready.campaign
        lane.admission.requests -= 1
        took = time.perf_counter() - self._started
        lane.tally.note(campaign.id, campaign.kind, outcome, status, took, self._user.id)
        self._way.answer(response)


class _Traced(_Asked):
    """One that is sampled. It tells of itself, and is not in a hurry."""

    __slots__ = ("_operation", "span_id")

    def __init__(
        self,
        lane: FastLane,
        ready: _Ready,
        digest: str,
        user: User,
        message: RawRequestMessage,
        payload: StreamReader,
        way: Way,
    ) -> None:
        super().__init__(lane, ready, digest, user, message, payload, way)
        reservation_id = ReservationId(ready.campaign.id, digest)
        self._operation = Operation(reservation_id, 0, message.headers.get("traceparent"))
        self.span_id = self._operation.span_id

    def answered(self, outcome: Outcome, now_ms: int, record: bytes | None) -> None:
        if outcome in _REFUSALS:
            problem = Problem.of(refusal_of(outcome, self._ready.campaign, now_ms))
            self._refuse(outcome, _response_of(problem, trace_id_text(self._operation)))
        else:
            if outcome is Outcome.REPLAYED:
                self._operation.after = MADE
            super().answered(outcome, now_ms, record)

    def turn_away(self) -> None:
        self._refuse("overloaded", _response_of(overloaded(), trace_id_text(self._operation)))

    def _hand_back(self) -> None:
        # The request has a span of its own on the ordinary lane.
        self._lane.tracer.tell(self._operation.over("fast lane", SpanKind.INTERNAL, {OUTCOME: "handed_back"}))
        super()._hand_back()

    def _answer(self, outcome: str, status: int, response: bytes) -> None:
        super()._answer(outcome, status, response)
        self._operation.outcome = outcome
        tell_of_request(self._lane.tracer, self._operation, ROUTE, "POST", status)


def _whole_body(payload: Any) -> bytes | None:
    """The body, if all of it is there in one piece; left where it is."""
    # Not to be had otherwise without taking it: aiohttp has no way to put a body back.
    if payload is EMPTY_PAYLOAD or not payload.is_eof():
        return None
    if len(payload._buffer) == 1 and not payload._buffer_offset:
        body: bytes = payload._buffer[0]
        return body
    return None


def _response_of(problem: Problem, trace_id: str | None = None) -> tuple[int, bytes]:
    """The status, and the whole response but for its date."""
    response = problem.response(trace_id)
    assert isinstance(response.body, bytes)  # noqa: S101  (it was made of bytes)
    head = [f"HTTP/1.1 {response.status} {response.reason}"]
    head += [f"{name}: {value}" for name, value in response.headers.items()]
    head += [f"Content-Length: {len(response.body)}", "Date: %b", f"Server: {SERVER_SOFTWARE}", "", ""]
    return response.status, "\r\n".join(head).encode() + response.body.replace(b"%", b"%%")


def _with_slot(problem: Problem) -> tuple[int, bytes]:
    """As `_response_of`, and but for the id of its trace."""
    example = "0" * len(trace_id_text(Operation()))
    status, response = _response_of(problem, example)
    return status, response.replace(example.encode(), b"%b")


@lru_cache(maxsize=1_024)
def _refused(refusal: Refusal) -> tuple[int, bytes]:
    # Thousands are refused in the same words: all, if it is the second before a sale opens.
    return _response_of(Problem.of(refusal))


_REFUSALS = frozenset(
    {
        Outcome.ENDED,
        Outcome.NOT_STARTED,
        Outcome.PAUSED,
        Outcome.QUOTA_EXCEEDED,
        Outcome.SOLD_OUT,
    }
)
"""Those that say all there is to say. After the others, there is more to look at."""
_NOT_MADE = _with_slot(store_unavailable(Unanswered.NOT_MADE))
_MAYBE_MADE = _with_slot(store_unavailable(Unanswered.UNKNOWN))
_OVERLOADED = _response_of(overloaded())
