"""Signatures as in the Standard Webhooks specification, their age judged by the store's clock."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

from standardwebhooks import Webhook

from gateway.problems import Problem
from reservation.clock import StoreClock
from reservation.text import is_printable

AGE_SECONDS_MAX = 300
ID_CHARS_MAX = 1_000


class WebhookVerifier:
    """Lets through what was signed with our secret within AGE_SECONDS_MAX."""

    def __init__(self, secret: str, clock: StoreClock) -> None:
        self._webhook = Webhook(secret)
        self._clock = clock

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises Problem unauthenticated."""
        message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        given = headers.get("webhook-signature", "")
        is_stamp = stamp.isascii() and stamp.isdigit() and len(stamp) <= 12
        if not (given and is_stamp and is_printable(message_id, ID_CHARS_MAX)):
            raise Problem(
                "unauthenticated", "webhook-id, webhook-timestamp and webhook-signature are needed."
            )
        if abs(self._clock.now_ms() / 1000 - int(stamp)) > AGE_SECONDS_MAX:
            raise Problem("unauthenticated", f"The signature was not made within {AGE_SECONDS_MAX} s of now.")
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise Problem("malformed_json", "The body is not UTF-8.") from None
        expected = self._webhook.sign(message_id, datetime.fromtimestamp(int(stamp), UTC), text).encode()
        # A secret being changed for another is bridged by several signatures.
        offered = given.encode(errors="replace").split(b" ")
        matches = [hmac.compare_digest(expected, one) for one in offered]
        if not any(matches):
            raise Problem("unauthenticated", "The signature is wrong.")

    def sign(self, message_id: str, body: str) -> dict[str, str]:
        """The headers that make `body` a webhook of ours, signed now."""
        now = self._clock.now_ms() // 1000
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": self._webhook.sign(message_id, datetime.fromtimestamp(now, UTC), body),
        }
