"""The payment provider, as far as a shopper's way to it goes. Refunds are in settlement/provider.py."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote

from reservation.ids import PaymentId


class CheckoutProvider(Protocol):
    """The part of a payment provider that takes money."""

    def pay_url(self, payment_id: PaymentId) -> str | None:
        """Where the shopper pays; None where the storefront takes them there by itself."""
        ...


class HostedCheckout:
    """A provider with a page of its own: its URL with {payment_id} in it, if we were told."""

    def __init__(self, template: str | None) -> None:
        self._template = template

    def pay_url(self, payment_id: PaymentId) -> str | None:
        if self._template is None:
            return None
        return self._template.replace("{payment_id}", quote(str(payment_id), safe=""))
