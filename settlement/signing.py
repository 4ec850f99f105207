"""What we send to others over HTTP, signed as in Standard Webhooks."""

from __future__ import annotations

from datetime import UTC, datetime

from standardwebhooks import Webhook


def signed_headers(webhook: Webhook, message_id: str, body: str) -> dict[str, str]:
    """The headers of a JSON message, signed now."""
    now = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": webhook.sign(message_id, now, body),
    }
