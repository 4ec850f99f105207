"""Refusals and errors as RFC 9457 problems: one table of codes, statuses and titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from reservation.attempt import Unanswered
from reservation.campaign import rfc3339
from reservation.outcomes import Refusal
from reservation.validation import FieldError

CODES: Mapping[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not JSON"),
    "malformed_request": (400, "This is not HTTP"),
    "unauthenticated": (401, "Who you are could not be verified"),
    "forbidden": (403, "You may not do this"),
    "not_eligible": (403, "You may not take part"),
    "not_found": (404, "There is nothing here"),
    "campaign_not_found": (404, "No such campaign"),
    "offer_not_found": (404, "No such offer"),
    "reservation_not_found": (404, "No such reservation"),
    "order_not_found": (404, "No such order"),
    "payment_not_found": (404, "No such payment"),
    "method_not_allowed": (405, "Not with this method"),
    "request_timeout": (408, "The request took too long to arrive"),
    "not_started": (409, "Not open yet"),
    "paused": (409, "Paused"),
    "sold_out": (409, "Sold out"),
    "quota_exceeded": (409, "Beyond the limit for one user"),
    "wrong_state": (409, "Not in this state"),
    "payment_window_closed": (409, "Not the time to pay this"),
    "ended": (410, "Over"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body must be application/json"),
    "invalid_request": (422, "The request is not valid"),
    "idempotency_mismatch": (422, "This key belongs to another request"),
    "payment_mismatch": (422, "Not the amount or currency that was asked for"),
    "rate_limited": (429, "Too many requests"),
    "internal_error": (500, "Our mistake"),
    "overloaded": (503, "Too busy"),
    "store_unavailable": (503, "The store is away"),
}
_RETRY_AFTER_S = {"overloaded": 1, "store_unavailable": 1, "rate_limited": 1}


class Problem(Exception):
    """An answer other than what was asked for."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        opens_at_ms: int | None = None,
        retry_after_s: int | None = None,
        reason: str | None = None,
        outcome: Unanswered | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status, self.title = CODES[code]
        self.detail = detail
        self.errors = errors
        self.opens_at_ms = opens_at_ms
        self.retry_after_s = _RETRY_AFTER_S.get(code) if retry_after_s is None else retry_after_s
        self.reason = reason
        self.outcome = outcome
        self.headers = dict(headers or {})
        self.says_all = code == "overloaded"
        """There is nothing more to be found out. Its trace is named only where there is one."""

    @classmethod
    def of(cls, refusal: Refusal) -> Problem:
        problem = cls(
            refusal.code,
            refusal.detail,
            opens_at_ms=refusal.opens_at_ms,
            retry_after_s=refusal.retry_after_s,
            reason=refusal.reason,
        )
        problem.says_all = True
        return problem

    def response(self, trace_id: str | None = None) -> web.Response:
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        headers = self.headers
        if self.retry_after_s is not None:
            body["retry_after_s"] = self.retry_after_s
            headers["Retry-After"] = str(self.retry_after_s)
        if self.opens_at_ms is not None:
            body["opens_at"] = rfc3339(self.opens_at_ms)
        if self.reason is not None:
            body["reason"] = self.reason
        if self.outcome is not None:
            body["outcome"] = self.outcome
        if self.errors:
            body["errors"] = [{"path": e.path, "message": e.message} for e in self.errors]
        if trace_id is not None:
            body["trace_id"] = trace_id
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(
            status=self.status,
            body=orjson.dumps(body),
            content_type="application/problem+json",
            headers=headers,
        )
