"""Payments: asking for one, and hearing from the provider."""

from __future__ import annotations

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.auth import Authenticator
from gateway.endpoint import decode_json, granted, json_response, read_body, read_document
from gateway.metrics import PAYMENT_NOTICES
from gateway.problems import Problem
from gateway.provider import CheckoutProvider
from gateway.reservations import reservation_id
from gateway.views import payment_view
from gateway.webhook import WebhookVerifier
from reservation.campaign import Document
from reservation.desk import Desk, Taken
from reservation.ids import PaymentId, Stage
from reservation.paying import Notice, NoticeType, payment_of
from reservation.text import is_printable
from reservation.tracing import concerns
from reservation.validation import Invalid, parse

REF_CHARS_MAX = 255
_log = structlog.get_logger(__name__)


class PaymentBody(Document):
    """What a shopper sends to pay."""

    stage: Stage


class _Lenient(BaseModel):
    # A provider adds fields as it pleases; what we rely on must be right.
    model_config = ConfigDict(strict=True, extra="ignore")


class NoticeData(_Lenient):
    payment_id: str
    amount: int
    currency: str
    provider_ref: str = Field(min_length=1, max_length=REF_CHARS_MAX)
    refund_id: str | None = None
    """Which of the payment's refunds; without it, one of this amount."""


class NoticeBody(_Lenient):
    """What a provider sends."""

    type: NoticeType
    timestamp: str
    data: NoticeData


class Payments:
    """The endpoints of payments."""

    def __init__(
        self,
        desk: Desk,
        authenticator: Authenticator,
        provider: CheckoutProvider,
        verifier: WebhookVerifier,
    ) -> None:
        self._desk = desk
        self._authenticator = authenticator
        self._provider = provider
        self._verifier = verifier

    async def request(self, request: web.Request) -> web.Response:
        user = await self._authenticator.user(request)
        found = reservation_id(request)
        body = await read_document(request, PaymentBody)
        reservation = granted(await self._desk.request_payment(found, user.id, body.stage))
        payment = payment_of(reservation, body.stage)
        assert payment is not None  # noqa: S101  (it has just been asked for)
        pay_url = self._provider.pay_url(reservation.payment_id(payment.name))
        return json_response(payment_view(reservation, payment, pay_url))

    async def webhook(self, request: web.Request) -> web.Response:
        raw = await read_body(request)
        self._verifier.verify(request.headers, raw)
        payment_id, notice = _notice(decode_json(raw))
        if payment_id is None:
            taken, reservation = Taken.UNKNOWN, None
        else:
            concerns(payment_id.reservation)
            taken, reservation = await self._desk.take_notice(payment_id, notice)
        PAYMENT_NOTICES.labels(notice.type, taken).inc()
        if taken is Taken.UNKNOWN or reservation is None:
            raise Problem("payment_not_found", "No such payment was ever asked for.")
        if taken is Taken.MISMATCHED:
            _log.error("payment_mismatch", payment_id=str(payment_id))
            raise Problem("payment_mismatch", "Another amount or currency was asked for; this is recorded.")
        return json_response({"status": taken, "state": reservation.state})


def _notice(found: object) -> tuple[PaymentId | None, Notice]:
    """The notice that a body is. Raises Problem: to a provider, all that is malformed is a 400."""
    try:
        body = parse(NoticeBody, found)
    except Invalid as invalid:
        raise Problem("malformed_json", f"Not a payment notice: {invalid}", errors=invalid.errors) from None
    data = body.data
    if not is_printable(data.provider_ref, REF_CHARS_MAX) or not is_printable(data.currency, 3):
        raise Problem("malformed_json", "provider_ref and currency must be printable.")
    payment_id = PaymentId.parse(data.payment_id)
    if payment_id is None:
        return None, Notice(body.type, "", data.amount, data.currency, data.provider_ref)
    refund = data.refund_id.removeprefix(f"{payment_id.reservation}.") if data.refund_id else None
    return payment_id, Notice(
        body.type, payment_id.name, data.amount, data.currency, data.provider_ref, refund
    )
