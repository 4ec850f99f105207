"""The sandbox: a stand-in payment provider. It signs and delivers the real webhook, over HTTP."""

from __future__ import annotations

from enum import StrEnum

import aiohttp
import orjson
import structlog
from aiohttp import web

from gateway.endpoint import decode_json, json_response, read_body, read_document
from gateway.problems import Problem
from gateway.webhook import WebhookVerifier
from reservation.campaign import Document, rfc3339
from reservation.clock import StoreClock
from reservation.desk import Desk
from reservation.ids import PaymentId
from reservation.paying import NoticeType
from reservation.record import Reservation
from reservation.tracing import concerns
from reservation.validation import parse

_DELIVERY_SECONDS_MAX = 10.0
_log = structlog.get_logger(__name__)


class SandboxOutcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class SandboxBody(Document):
    outcome: SandboxOutcome


class RefundBody(Document):
    """What settlement asks a provider for."""

    refund_id: str
    payment_id: str
    amount: int
    currency: str
    reason: str
    provider_ref: str | None = None


class Sandbox:
    """Takes every payment and refund at its word, and tells the gateway so."""

    def __init__(self, desk: Desk, clock: StoreClock, verifier: WebhookVerifier, base_url: str) -> None:
        self._desk = desk
        self._clock = clock
        self._verifier = verifier
        self._webhook_url = f"{base_url}/v1/payments/webhook"
        self._session: aiohttp.ClientSession | None = None

    async def pay(self, request: web.Request) -> web.Response:
        body = await read_document(request, SandboxBody)
        payment_id, reservation = await self._payment(request.match_info["payment"])
        payment = reservation.facts.payments[payment_id.name]
        notice = NoticeType(f"payment.{body.outcome}")
        return await self._deliver(notice, payment_id, payment.amount, reservation.facts.price.currency)

    async def refund(self, request: web.Request) -> web.Response:
        raw = await read_body(request)
        self._verifier.verify(request.headers, raw)
        body = parse(RefundBody, decode_json(raw))
        payment_id, _ = await self._payment(body.payment_id)
        return await self._deliver(
            NoticeType.REFUND_SUCCEEDED, payment_id, body.amount, body.currency, body.refund_id
        )

    async def close(self, _: object = None) -> None:
        if self._session is not None:
            await self._session.close()

    async def _payment(self, text: str) -> tuple[PaymentId, Reservation]:
        payment_id = PaymentId.parse(text)
        reservation = await self._desk.payment(payment_id) if payment_id else None
        if payment_id is None or reservation is None:
            raise Problem("payment_not_found", "No such payment was ever asked for.")
        concerns(payment_id.reservation)
        return payment_id, reservation

    async def _deliver(
        self,
        notice: NoticeType,
        payment_id: PaymentId,
        amount: int,
        currency: str,
        refund_id: str | None = None,
    ) -> web.Response:
        data = {
            "payment_id": str(payment_id),
            "amount": amount,
            "currency": currency,
            "provider_ref": f"sandbox:{payment_id}",
            "refund_id": refund_id,
        }
        timestamp = rfc3339(self._clock.now_ms())
        body = orjson.dumps({"type": notice, "timestamp": timestamp, "data": data}).decode()
        # The same event has the same id, however often it is delivered.
        headers = self._verifier.sign(f"{refund_id or payment_id}/{notice}", body)
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_DELIVERY_SECONDS_MAX)
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            async with self._session.post(
                self._webhook_url, data=body, headers={"Content-Type": "application/json", **headers}
            ) as answer:
                await answer.read()
                return json_response({"webhook_status": answer.status})
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.error("webhook_not_delivered", url=self._webhook_url, error=str(error))
            raise Problem("overloaded", "The webhook could not be delivered. Try again.") from None
