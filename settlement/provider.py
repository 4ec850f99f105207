"""Asking a payment provider for refunds over HTTP, signed as in Standard Webhooks."""

from __future__ import annotations

import aiohttp
import orjson
from standardwebhooks import Webhook

from settlement.book import RefundDue
from settlement.refunds import RefundNotTaken
from settlement.signing import signed_headers

_SECONDS_MAX = 10.0


class HttpRefunds:
    """Posts each refund to one URL. The sandbox takes them at /sandbox/refunds."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._webhook = Webhook(secret)
        self._session: aiohttp.ClientSession | None = None

    async def refund(self, refund: RefundDue) -> None:
        body = orjson.dumps(refund._asdict()).decode()
        headers = signed_headers(self._webhook, refund.refund_id, body)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS_MAX))
        try:
            async with self._session.post(self._url, data=body, headers=headers) as answer:
                if answer.status >= 300:
                    raise RefundNotTaken(f"the provider answered {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RefundNotTaken(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
