"""The span of a request."""

from __future__ import annotations

from collections.abc import Mapping

from reservation.ids import is_campaign_id
from reservation.tracing import CAMPAIGN, OUTCOME, Operation, SpanKind, Tracer


def tell_of_request(
    tracer: Tracer,
    operation: Operation,
    route: str,
    method: str,
    status: int,
    matched: Mapping[str, str] | None = None,
) -> None:
    """A sampled request has been answered. Of its path there is only what the route says, and a campaign."""
    attributes: dict[str, str | int | float] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
    }
    if operation.outcome:
        attributes[OUTCOME] = operation.outcome
    if operation.reservation is None:
        campaign = (matched or {}).get("campaign", "")
        if is_campaign_id(campaign):
            attributes[CAMPAIGN] = campaign
    elif status == 404:
        operation.after = 0  # it is not there: nothing led here
    tracer.tell(operation.over(f"{method} {route}", SpanKind.SERVER, attributes, failed=status >= 500))


def trace_id_text(operation: Operation) -> str:
    """As W3C Trace Context and every tool writes it."""
    return f"{operation.trace_id:032x}"
