"""Refunds: asks the payment provider for each until the provider has said that it was made."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import structlog

from reservation.ids import PaymentId
from reservation.outcomes import Fault
from reservation.tracing import NO_TRACER, SpanKind, Tracer, operation
from settlement.book import BookUnavailable, RefundDue
from settlement.metrics import REFUND_REQUESTS, REFUND_SECONDS
from settlement.retry import patiently

BATCH_MAX = 50
PAUSE_SECONDS = 0.2
_log = structlog.get_logger(__name__)


class RefundNotTaken(Fault):
    """The provider did not take the refund. It is asked again."""


class RefundProvider(Protocol):
    """The part of a payment provider that gives money back."""

    async def refund(self, refund: RefundDue) -> None:
        """Ask for a refund, idempotent by its id. Its success comes later, by webhook.

        Raises RefundNotTaken.
        """
        ...


class RefundsDue(Protocol):
    """The book, as it remembers what is to be given back."""

    async def refunds_to_ask_for(self, limit: int) -> list[RefundDue]:
        """Refunds whose time to ask has come; each is given to one caller at a time."""
        ...


class Refunder:
    """Takes refunds that are due from the book to the provider, for ever."""

    def __init__(self, book: RefundsDue, provider: RefundProvider, tracer: Tracer = NO_TRACER) -> None:
        self._tracer = tracer
        self._book = book
        self._provider = provider

    async def run(self) -> None:
        while True:
            due = await patiently(lambda: self._book.refunds_to_ask_for(BATCH_MAX), BookUnavailable)
            await asyncio.gather(*(self._ask(refund) for refund in due))
            if not due:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, refund: RefundDue) -> None:
        payment = PaymentId.parse(refund.payment_id)
        reservation_id = payment.reservation if payment is not None else None
        with operation(self._tracer, "ask for refund", SpanKind.CLIENT, reservation_id) as step:
            started = time.monotonic()
            step.outcome = await self._outcome(refund)
            REFUND_REQUESTS.labels(step.outcome).inc()
            REFUND_SECONDS.labels(step.outcome).observe(time.monotonic() - started)

    async def _outcome(self, refund: RefundDue) -> str:
        try:
            await self._provider.refund(refund)
            return "taken"
        except RefundNotTaken as error:
            _log.warning("refund_not_taken", refund_id=refund.refund_id, error=str(error))
            return "not_taken"
