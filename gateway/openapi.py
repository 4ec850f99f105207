"""The API's description, from the same documents that check the requests."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.admin import ActionBody, StockBody
from gateway.orders import OrderPaymentBody
from gateway.payments import NoticeBody, PaymentBody
from gateway.problems import CODES
from gateway.quotes import QuoteBody
from gateway.rankings import TOP
from gateway.reservations import PAGE, PAGE_MAX, AmendBody, ReserveBody
from gateway.sandbox import RefundBody, SandboxBody
from reservation.attempt import Unanswered
from reservation.campaign import Phase
from reservation.ids import Stage
from reservation.kinds import KINDS
from reservation.main_order import OrderState, ReportedOrder
from reservation.record import PaymentStatus, State

Schema = dict[str, Any]
_REF = "#/components/schemas/"
_INSTANT: Schema = {"type": "string", "format": "date-time"}
_AMOUNT: Schema = {"type": "integer", "description": "In minor units of the currency."}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer"}


def describe() -> Schema:
    """The OpenAPI 3.1 document."""
    bodies: list[type[BaseModel]] = [ReserveBody, PaymentBody, NoticeBody, ActionBody, StockBody]
    bodies += [AmendBody, QuoteBody, ReportedOrder, OrderPaymentBody, SandboxBody, RefundBody]
    bodies += [kind.document for kind in KINDS.values()]
    _, found = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF + "{model}")
    documents = [{"$ref": _REF + kind.document.__name__} for kind in KINDS.values()]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Doorbuster",
            "version": version("doorbuster"),
            "summary": "Reservations for flash sales, presales with deposits and limited trade-ins.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _paths(),
        "components": {
            "schemas": {**found["$defs"], "CampaignDocument": {"oneOf": documents}, **_answers()},
            "securitySchemes": {
                "user": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "service": {"type": "http", "scheme": "bearer", "description": "A service key."},
            },
        },
    }


def _object(properties: Schema, *, optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _enum(values: object) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}  # type: ignore[attr-defined]


def _answers() -> dict[str, Schema]:
    price = _object(
        {
            "currency": _TEXT,
            "unit": _AMOUNT,
            "total": _AMOUNT,
            "deposit": _AMOUNT,
            "deposit_worth": _AMOUNT,
            "discounts": _array(_object({"code": _TEXT, "amount": _AMOUNT})),
            "balance": _AMOUNT,
        }
    )
    line = _object(
        {"sku": _TEXT, "quantity": _COUNT, "gift": {"type": "boolean"}, "main_order_id": _TEXT},
        optional=("gift", "main_order_id"),
    )
    rank = _object({"rank": _COUNT, "user": _TEXT, "amount": _AMOUNT})
    due = _object({"stage": _enum(Stage), "amount": _AMOUNT, "currency": _TEXT, "by": _INSTANT})
    shown = {
        "phase": _enum(Phase),
        "server_time": _INSTANT,
        "offers": _array(
            {
                "type": "object",
                "properties": {"sku": _TEXT, "remaining": _COUNT, "sold_out": {"type": "boolean"}},
                "required": ["sku", "remaining", "sold_out"],
            }
        ),
    }
    offer_audit = dict.fromkeys(("stock", "held", "sold", "available"), _COUNT)
    return {
        "CampaignEvent": _object(shown),
        "Campaign": {
            "type": "object",
            "description": "The campaign's document, with what is true of it now. Up to 1 s old.",
            "properties": {"id": _TEXT, "kind": _enum(KINDS), **shown},
            "required": ["id", "kind", *shown],
        },
        "Reservation": _object(
            {
                "id": _TEXT,
                "campaign": _TEXT,
                "kind": _enum(KINDS),
                "sku": _TEXT,
                "quantity": _COUNT,
                "user": _TEXT,
                "state": _enum(State),
                "version": _COUNT,
                "due": {"oneOf": [due, {"type": "null"}]},
                "price": price,
                "lines": {**_array(line), "description": "Of a bundle, or with gifts: what is shipped."},
                "order_id": {**_TEXT, "description": "The main order that a trade-in belongs to."},
                "created_at": _INSTANT,
                "updated_at": _INSTANT,
            },
            optional=("lines", "order_id"),
        ),
        "Quote": _object(
            {
                "campaign": _TEXT,
                **{name: schema for name, schema in price["properties"].items() if name != "unit"},
                "unit": {"oneOf": [_AMOUNT, {"type": "null"}]},
                "lines": _array(_object({"sku": _TEXT, "quantity": _COUNT, "price": price})),
                "sku": _TEXT,
                "quantity": _COUNT,
                "price": price,
            },
            optional=("sku", "quantity", "price"),
        ),
        "Place": _object({"sku": _TEXT, "quantity": _COUNT, "position": _COUNT, "state": _enum(["waiting"])}),
        "Ranking": _object(
            {
                "campaign": _TEXT,
                "currency": _TEXT,
                "final": {"type": "boolean", "description": "The campaign is over: this stands."},
                "entries": _array(rank),
                "me": {"oneOf": [rank, {"type": "null"}]},
            }
        ),
        "MainOrder": _object(
            {
                "order_id": _TEXT,
                "user": {"type": ["string", "null"]},
                "state": _enum(OrderState),
                "lines": _array(
                    _object({"sku": _TEXT, "category": {"type": ["string", "null"]}, "amount": _AMOUNT})
                ),
                "paid_at": {"oneOf": [_INSTANT, {"type": "null"}]},
                "entitlements": _array(_object({"campaign": _TEXT, "granted": _COUNT, "used": _COUNT})),
                "trade_ins": _array(
                    _object(
                        {
                            "id": _TEXT,
                            "campaign": _TEXT,
                            "sku": _TEXT,
                            "quantity": _COUNT,
                            "state": _enum(State),
                        }
                    )
                ),
            }
        ),
        "Payment": _object(
            {
                "payment_id": _TEXT,
                "stage": _enum(Stage),
                "amount": _AMOUNT,
                "currency": _TEXT,
                "pay_url": {"type": ["string", "null"], "format": "uri"},
                "status": _enum(PaymentStatus),
            }
        ),
        "Audit": _object(
            {
                "ok": {"type": "boolean"},
                "campaigns": _array(
                    _object(
                        {
                            "id": _TEXT,
                            "offers": _array(_object({"sku": _TEXT, **offer_audit})),
                            "violations": _array(_object({"invariant": _TEXT, "detail": _TEXT})),
                        }
                    )
                ),
            }
        ),
        "Report": _report(),
        "Problem": _object(
            {
                "type": _TEXT,
                "title": _TEXT,
                "status": _COUNT,
                "detail": _TEXT,
                "code": _enum(CODES),
                "retry_after_s": _COUNT,
                "opens_at": _INSTANT,
                "reason": {**_TEXT, "description": "Why, where the code leaves several ways open."},
                "outcome": {
                    **_enum(Unanswered),
                    "description": "Of store_unavailable: whether the request has surely done nothing.",
                },
                "errors": _array(_object({"path": _TEXT, "message": _TEXT})),
                "trace_id": {**_TEXT, "description": "What logs and traces call the request."},
            },
            optional=("retry_after_s", "opens_at", "reason", "outcome", "errors", "trace_id"),
        ),
    }


def _report() -> Schema:
    figures: Schema = {"type": "object", "description": "Figures by name; null is not known."}
    maybe: Schema = {"type": ["object", "null"]}
    rows = _array(figures)
    campaign = dict.fromkeys(("id", "kind", "currency", "status"), _TEXT)
    campaign |= {"title": {"type": ["string", "null"]}, "opens_at": _INSTANT, "closes_at": _INSTANT}
    return {
        **_object(
            {
                "campaign": _object(campaign),
                "as_of": _INSTANT,
                "summary": figures,
                "refusals": maybe,
                "funnel": rows,
                "refunds": figures,
                "presale": maybe,
                "trade_in": maybe,
                "gifts": rows,
                "waitlist": figures,
                "offers": rows,
                "tiers": rows,
                "minutes": rows,
                "levels": {"type": "object", "additionalProperties": rows},
                "definitions": {"type": "object", "additionalProperties": _TEXT},
                "compared": maybe,
            }
        ),
        "description": "`definitions` says what each figure means, by its path. Money is in minor units.",
    }


def _operation(
    summary: str,
    answers: dict[int, Schema | None],
    *,
    problems: str = "",
    who: str | None = None,
    body: str | None = None,
    parameters: tuple[Schema, ...] = (),
) -> Schema:
    """One operation. `problems` are the codes that it may answer, besides those that all may."""
    codes = [*problems.split(), "overloaded", "store_unavailable"]
    if who:
        codes += ["unauthenticated", "forbidden"]
    if body:
        codes += [
            "malformed_json",
            "unsupported_media_type",
            "body_too_large",
            "request_timeout",
            "invalid_request",
        ]
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(CODES[code][0], []).append(code)
    responses: Schema = {
        str(status): {"description": "Done."}
        | ({"content": {"application/json": {"schema": schema}}} if schema else {})
        for status, schema in answers.items()
    }
    for status, found in sorted(by_status.items()):
        problem = {"application/problem+json": {"schema": {"$ref": _REF + "Problem"}}}
        responses[str(status)] = {"description": ", ".join(found), "content": problem}
    operation: Schema = {"summary": summary, "responses": responses, "security": [{who: []}] if who else []}
    if body:
        content = {"application/json": {"schema": {"$ref": _REF + body}}}
        operation["requestBody"] = {"required": True, "content": content}
    if parameters:
        operation["parameters"] = list(parameters)
    return operation


def _stream(name: str, data: str, summary: str, **told: Any) -> Schema:
    """An operation that answers with server-sent events of this name, whose data is JSON of this schema."""
    operation = _operation(summary, {200: None}, **told)
    text = (
        f"Events named `{name}`, whose data is a {data} in JSON: the state now, unless Last-Event-ID is its "
        "id; then the latest after each change. 15 s of silence end with a comment. When we end the stream, "
        'an event named `end` says why: its data is `{"reason": "slow"}` or `{"reason": "restart"}`.'
    )
    events = {"text/event-stream": {"schema": {"type": "string", "contentSchema": _ref(data)}}}
    operation["responses"]["200"] = {"description": text, "content": events}
    last = {"name": "Last-Event-ID", "in": "header", "required": False, "schema": _TEXT}
    operation.setdefault("parameters", []).append(last)
    return operation


def _in_path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _in_query(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _ref(name: str) -> Schema:
    return {"$ref": _REF + name}


def _paths() -> Schema:
    campaign, reservation, order = ((_in_path(name),) for name in ("campaign", "reservation", "order"))
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": "The same key is the same reservation. Without one, every request is another.",
    }
    page = (
        _in_query("campaign", _TEXT, "Only of this campaign."),
        _in_query(
            "limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE}, "Page size."
        ),
        _in_query("after", _TEXT, "The `next` of the page before."),
    )
    signed = tuple(
        {"name": name, "in": "header", "required": True, "schema": _TEXT}
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    own = "reservation_not_found"
    plain = {"type": "object"}
    return {
        "/v1/campaigns": {
            "get": _operation(
                "All campaigns.", {200: _object({"campaigns": _array(_ref("Campaign"))}), 304: None}
            )
        },
        "/v1/campaigns/{campaign}": {
            "get": _operation(
                "One campaign.",
                {200: _ref("Campaign"), 304: None},
                problems="campaign_not_found",
                parameters=campaign,
            ),
            "put": _operation(
                "Create a campaign (201) or change it (200).",
                {200: _ref("Campaign"), 201: _ref("Campaign")},
                who="service",
                body="CampaignDocument",
                parameters=campaign,
            ),
        },
        "/v1/campaigns/{campaign}/events": {
            "get": _stream(
                "campaign",
                "CampaignEvent",
                "Watch its phase and what is left.",
                problems="campaign_not_found",
                parameters=campaign,
            )
        },
        "/v1/campaigns/{campaign}/reservations": {
            "post": _operation(
                "Reserve.",
                {201: _ref("Reservation")},
                problems="idempotency_mismatch campaign_not_found offer_not_found ended not_started paused "
                "not_eligible quota_exceeded sold_out",
                who="user",
                body="ReserveBody",
                parameters=(*campaign, key),
            )
        },
        "/v1/campaigns/{campaign}/quote": {
            "post": _operation(
                "What a basket would cost; each line as a reservation of it would.",
                {200: _ref("Quote")},
                problems="campaign_not_found offer_not_found",
                who="user",
                body="QuoteBody",
                parameters=campaign,
            )
        },
        "/v1/campaigns/{campaign}/waitlist": {
            "post": _operation(
                "Stand in line for what is sold out. Again is harmless; another quantity is another place.",
                {201: _ref("Place")},
                problems="campaign_not_found offer_not_found ended not_started paused not_eligible "
                "quota_exceeded sold_out wrong_state",
                who="user",
                body="ReserveBody",
                parameters=campaign,
            ),
            "get": _operation(
                "One's own places in this campaign's queues.",
                {200: _object({"places": _array(_ref("Place"))})},
                problems="campaign_not_found",
                who="user",
                parameters=campaign,
            ),
            "delete": _operation(
                "Give one's place up; again is harmless.",
                {200: plain},
                problems="campaign_not_found",
                who="user",
                parameters=(*campaign, _in_query("sku", _TEXT, "For this SKU; without it, all places.")),
            ),
        },
        "/v1/campaigns/{campaign}/rankings/buyers": {
            "get": _operation(
                "Who spends most. With a user's token, also one's own place.",
                {200: _ref("Ranking")},
                problems="campaign_not_found invalid_request unauthenticated",
                parameters=(
                    *campaign,
                    _in_query(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": TOP},
                        "How many.",
                    ),
                ),
            )
        },
        "/v1/campaigns/{campaign}/actions": {
            "post": _operation(
                "Pause, resume or close a campaign.",
                {200: _ref("Campaign")},
                problems="campaign_not_found wrong_state",
                who="service",
                body="ActionBody",
                parameters=campaign,
            )
        },
        "/v1/campaigns/{campaign}/offers/{sku}/stock": {
            "post": _operation(
                "Add stock, or take away what is neither held nor sold.",
                {200: plain},
                problems="campaign_not_found offer_not_found wrong_state",
                who="service",
                body="StockBody",
                parameters=(*campaign, _in_path("sku")),
            )
        },
        "/v1/campaigns/{campaign}/audit": {
            "get": _operation(
                "Check every invariant.",
                {200: _ref("Audit")},
                problems="campaign_not_found",
                who="service",
                parameters=campaign,
            )
        },
        "/v1/campaigns/{campaign}/report": {
            "get": _operation(
                "What it came to, by the book. Up to 5 s old.",
                {200: _ref("Report")},
                problems="campaign_not_found",
                who="service",
                parameters=(*campaign, _in_query("compare", _TEXT, "An earlier campaign, to put beside it.")),
            )
        },
        "/v1/reservations": {
            "get": _operation(
                "One's own reservations, newest first.",
                {
                    200: _object(
                        {"reservations": _array(_ref("Reservation")), "next": {"type": ["string", "null"]}}
                    )
                },
                problems="invalid_request",
                who="user",
                parameters=page,
            )
        },
        "/v1/reservations/{reservation}": {
            "get": _operation(
                "One of one's own reservations.",
                {200: _ref("Reservation")},
                problems=own,
                who="user",
                parameters=reservation,
            ),
            "patch": _operation(
                "Change the quantity, where the campaign's rules allow it.",
                {200: _ref("Reservation")},
                problems=f"{own} offer_not_found ended paused wrong_state quota_exceeded sold_out",
                who="user",
                body="AmendBody",
                parameters=reservation,
            ),
            "delete": _operation(
                "Cancel; again is harmless.",
                {200: _ref("Reservation")},
                problems=f"{own} wrong_state",
                who="user",
                parameters=reservation,
            ),
        },
        "/v1/reservations/{reservation}/events": {
            "get": _stream(
                "reservation",
                "Reservation",
                "Watch what becomes of it.",
                problems=own,
                who="user",
                parameters=reservation,
            )
        },
        "/v1/reservations/{reservation}/payments": {
            "post": _operation(
                "Ask to pay; again is harmless.",
                {200: _ref("Payment")},
                problems=f"{own} wrong_state payment_window_closed",
                who="user",
                body="PaymentBody",
                parameters=reservation,
            )
        },
        "/v1/payments/webhook": {
            "post": _operation(
                "For the payment provider: signed as in Standard Webhooks.",
                {200: plain},
                problems="unauthenticated payment_not_found payment_mismatch malformed_json",
                body="NoticeBody",
                parameters=signed,
            )
        },
        "/v1/orders": {
            "post": _operation(
                "Report a paid main order, or what is left of one: it grants trade-in entitlements.",
                {200: _ref("MainOrder"), 201: _ref("MainOrder")},
                problems="idempotency_mismatch",
                who="service",
                body="ReportedOrder",
            )
        },
        "/v1/orders/{order}": {
            "get": _operation(
                "A main order, what it entitles to, and what was made of that.",
                {200: _ref("MainOrder")},
                problems="order_not_found",
                who="service",
                parameters=order,
            )
        },
        "/v1/orders/{order}/cancel": {
            "post": _operation(
                "Take its entitlements and trade-ins back; again, or before the order, is harmless.",
                {200: _ref("MainOrder")},
                problems="order_not_found",
                who="service",
                parameters=order,
            )
        },
        "/v1/orders/{order}/payments": {
            "post": _operation(
                "A trade-in was paid for with the main order.",
                {200: _ref("Reservation")},
                problems=f"order_not_found {own} wrong_state",
                who="service",
                body="OrderPaymentBody",
                parameters=order,
            )
        },
        "/sandbox/payments/{payment}": {
            "post": _operation(
                "Sandbox only: pay, or fail to.",
                {200: _object({"webhook_status": _COUNT})},
                problems="payment_not_found",
                body="SandboxBody",
                parameters=(_in_path("payment"),),
            )
        },
        "/sandbox/refunds": {
            "post": _operation(
                "Sandbox only, for settlement: refund. Signed as the webhook is.",
                {200: _object({"webhook_status": _COUNT})},
                problems="unauthenticated payment_not_found",
                body="RefundBody",
                parameters=signed,
            )
        },
        "/healthz": {"get": _operation("Liveness.", {200: plain})},
        "/readyz": {"get": _operation("Readiness; 503 names the part that fails.", {200: plain})},
        "/metrics": {"get": _operation("Prometheus metrics of all processes.", {200: None})},
        "/openapi.json": {"get": _operation("This description.", {200: plain})},
    }
