"""Whom notifications are sent to: a webhook, signed as in Standard Webhooks, or the log."""

from __future__ import annotations

import aiohttp
import orjson
import structlog
from standardwebhooks import Webhook

from settlement.book import NotificationDue
from settlement.notifier import Gone, NotTaken
from settlement.signing import signed_headers

_GONE = 410
_LOGGED = ("reservation_id", "campaign", "kind", "sku", "quantity", "state", "version", "due")
"""Of a notification. A log is no place for who somebody is, and `details` may say anything."""
_log = structlog.get_logger(__name__)


class WebhookRecipient:
    """Posts each notification to one URL. Only a 2xx is a yes: a redirect is not followed."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._webhook = Webhook(secret)
        self._session: aiohttp.ClientSession | None = None

    async def take(self, notification: NotificationDue) -> None:
        body = orjson.dumps(notification.body).decode()
        headers = signed_headers(self._webhook, notification.notification_id, body)
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
        try:
            # What it says beside the status is not read, so it may be any length.
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotTaken(f"{type(error).__name__}: {error}") from error
        if status == _GONE:
            raise Gone(f"the recipient answered {status}")
        if not 200 <= status < 300:
            raise NotTaken(f"the recipient answered {status}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class LogRecipient:
    """Writes to the log what each notification is about, but not whom: for development."""

    async def take(self, notification: NotificationDue) -> None:
        _log.info(
            "notification",
            notification_id=notification.notification_id,
            type=notification.body["type"],
            data={name: value for name, value in notification.body["data"].items() if name in _LOGGED},
        )

    async def close(self) -> None:
        pass
