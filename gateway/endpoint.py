"""What every endpoint shares: reading its body, turning faults into problems, being measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
import structlog
from aiohttp import ClientError, web
from pydantic import BaseModel

from gateway.admission import Admission, overloaded
from gateway.metrics import REQUESTS
from gateway.problems import Problem
from gateway.request_spans import tell_of_request, trace_id_text
from gateway.watcher import Watcher
from reservation import tracing
from reservation.attempt import Attempt, Unanswered, begin
from reservation.outcomes import Contended, Fault, Refusal
from reservation.sparing import Sparing
from reservation.tracing import NO_TRACER, Tracer
from reservation.validation import FieldError, Invalid, parse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
D = TypeVar("D", bound=BaseModel)

REQUEST_BYTES_MAX = 64 * 1024
DOCUMENT_BYTES_MAX = 512 * 1024
BODY_SECONDS_MAX = 10.0
NESTING_MAX = 100
_log = structlog.get_logger(__name__)
_sparing = Sparing()


def endpoint(
    admission: Admission, route: str, method: str, handler: Handler, tracer: Tracer = NO_TRACER
) -> Handler:
    """`handler`, measured and traced under its route, bounded, and with every fault answered as a problem."""
    durations: dict[int, Any] = {}  # the histogram's children, by status: looked up once each

    async def handle(request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        full = admission.full
        admission.requests += 1
        attempt, operation = begin(), tracing.begin(request.headers.get("traceparent"))
        sampled = False
        try:
            if full:
                raise overloaded()
            response = await handler(request)
            sampled = operation.is_sampled(tracer)
        except Exception as error:
            problem = _problem(error, route, method, attempt)
            operation.outcome, sampled = problem.code, operation.is_sampled(tracer)
            named = sampled or not problem.says_all
            response = problem.response(trace_id_text(operation) if named else None)
        finally:
            admission.requests -= 1
        if admission.draining:
            response.force_close()
        status = response.status
        if status not in durations:
            durations[status] = REQUESTS.labels(route, method, str(status))
        durations[status].observe(time.perf_counter() - started)
        if sampled:
            tell_of_request(tracer, operation, route, method, status, request.match_info)
        if isinstance(response, Watcher):
            await response.follow(request)  # from now on it is no request under way
        return response

    return handle


def _problem(error: Exception, route: str, method: str, attempt: Attempt) -> Problem:
    """What went wrong, as who asked is told; what is for us to know is logged, and names nobody."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Invalid):
        return Problem("invalid_request", str(error)[:1000], errors=error.errors)
    if isinstance(error, Contended):
        return Problem("overloaded", "Too many changes to the same thing at once. Try again.")
    if isinstance(error, Fault):
        kind = type(error).__name__
        times = _sparing.times(kind)
        if times:
            said = f"{kind}: {error}"
            _log.warning("unavailable", route=route, error=said, outcome=attempt.outcome, times=times)
        return store_unavailable(attempt.outcome)
    _log.error("internal_error", method=method, route=route, exc_info=error)
    return Problem("internal_error", "This is a defect; it has been logged.")


def store_unavailable(outcome: Unanswered) -> Problem:
    text = "The service cannot reach its data. With the same key, try again."
    return Problem("store_unavailable", text, outcome=outcome)


async def read_body(request: web.Request, bytes_max: int = REQUEST_BYTES_MAX) -> bytes:
    """The whole body. Raises Problem when it is too large, too slow or broken off."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    parts = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for part in request.content.iter_any():
                parts += part
                if len(parts) > bytes_max:
                    raise _too_large(bytes_max)
    except TimeoutError:
        raise Problem("request_timeout", f"The body took over {BODY_SECONDS_MAX:g} s.") from None
    except (ClientError, OSError, web.RequestPayloadError) as error:
        raise Problem("malformed_json", f"The body broke off: {type(error).__name__}.") from None
    return bytes(parts)


async def read_json(request: web.Request, bytes_max: int = REQUEST_BYTES_MAX) -> Any:
    """The body as a JSON value. Raises Problem."""
    utf8 = (request.charset or "utf-8").lower() in ("utf-8", "utf8", "us-ascii")
    coded = request.headers.get("Content-Encoding", "identity").lower() != "identity"
    if request.content_type != "application/json" or not utf8 or coded:
        raise Problem("unsupported_media_type", "Send application/json, in UTF-8 and not compressed.")
    return decode_json(await read_body(request, bytes_max))


def decode_json(body: bytes) -> Any:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("malformed_json", f"The body is not JSON: {error}.") from None
    # orjson reads deeper than it and pydantic then write and check.
    if body.count(b"[") + body.count(b"{") > NESTING_MAX and _nesting(found) > NESTING_MAX:
        raise Problem("malformed_json", f"The body is nested more than {NESTING_MAX} levels deep.")
    return found


async def read_document(request: web.Request, document: type[D]) -> D:
    """The body as a strict document. Raises Problem, Invalid."""
    return parse(document, await read_json(request))


def granted(answer: T | Refusal) -> T:
    """The answer, unless it is a refusal."""
    if isinstance(answer, Refusal):
        raise Problem.of(answer)
    return answer


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", headers=headers
    )


def invalid(path: str, message: str) -> Invalid:
    return Invalid(FieldError(path, message))


def _nesting(found: Any) -> int:
    levels, within = 0, [found]
    while within:
        levels += 1
        containers = (one for one in within if isinstance(one, (list, dict)))
        within = [part for one in containers for part in (one.values() if isinstance(one, dict) else one)]
    return levels


def _too_large(bytes_max: int) -> Problem:
    return Problem("body_too_large", f"At most {bytes_max} bytes.")
