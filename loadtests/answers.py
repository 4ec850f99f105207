"""An answer as it came, and whether the contract allows it. Pure: no Locust in here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

STATUS_OF: Mapping[str, int] = {
    "not_eligible": 403,
    "not_started": 409,
    "paused": 409,
    "sold_out": 409,
    "quota_exceeded": 409,
    "wrong_state": 409,
    "payment_window_closed": 409,
    "ended": 410,
    "rate_limited": 429,
    "overloaded": 503,
    "store_unavailable": 503,
}
"""What a shopper who does everything right may be told, and with which status. What is not here, such
as `unauthenticated` or `internal_error`, is a defect of the service or of this load test."""
NONSENSE_STATUS_OF: Mapping[str, int] = {
    "malformed_json": 400,
    "unauthenticated": 401,
    "campaign_not_found": 404,
    "offer_not_found": 404,
    "invalid_request": 422,
}
"""What who sends nonsense must be told."""
BUSY = frozenset({"rate_limited", "overloaded", "store_unavailable"})
"""Any request may be told to come back; whether it was done is then unknown."""
BUSY_RETRY_AFTER_S = 1.0
"""After no answer, and after a 429 or 503 that does not say when to come back."""


class Unexpected(Exception):
    """An answer that the contract does not allow.

    Locust counts failures by message, so no message has an id or a time in it.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. The names of its headers are in lower case. Status 0 is no answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The body. Raises Unexpected when it is not a JSON object."""
        try:
            body = json.loads(self.content)
        except ValueError:
            raise Unexpected(f"{self.status}: the body is not JSON") from None
        if not isinstance(body, dict):
            raise Unexpected(f"{self.status}: the body is not a JSON object")
        return body

    def refusal(self, allowed: AbstractSet[str] = frozenset()) -> str:
        """The code of the problem that this is. Raises Unexpected unless it is allowed here, or BUSY."""
        media_type = (self.headers.get("content-type") or "").partition(";")[0]
        if media_type != "application/problem+json":
            raise Unexpected(f"{self.status}: {media_type or 'nothing'} instead of a problem")
        problem = self.json()
        code = str(problem.get("code"))
        if code not in allowed | BUSY:
            raise Unexpected(f"{self.status} {code}")
        status = STATUS_OF.get(code) or NONSENSE_STATUS_OF[code]
        said = (self.status, problem.get("status"), problem.get("type"))
        if said != (status, status, f"/problems/{code}"):
            raise Unexpected(f"{self.status} {code}: status and type do not belong to the code")
        if not isinstance(problem.get("title"), str) or not isinstance(problem.get("detail"), str):
            raise Unexpected(f"{self.status} {code}: no title or no detail")
        return code

    @property
    def retry_after_s(self) -> float:
        """How long the service asks to be left alone."""
        said = self.headers.get("retry-after") or ""
        if said.isascii() and said.isdigit():
            return float(said)
        return BUSY_RETRY_AFTER_S if self.status in (0, 429, 503) else 0.0
