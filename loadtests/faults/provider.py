"""A payment provider and a merchant of ours, on loopback, with books of their own.

It signs and delivers payment webhooks as a provider does: at least once, until it is told that they were
taken. It takes refunds and says when they were made. And it takes the merchant's notifications, or not.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
import orjson
from aiohttp import web
from standardwebhooks import Webhook

DELIVERY_SECONDS_MAX = 40.0
"""So long a webhook is sent again and again."""
ANSWER_SECONDS_MAX = 5.0
_PAUSE_SECONDS = (0.1, 0.6)


@dataclass(slots=True)
class Charge:
    """Money that was taken from a shopper."""

    payment_id: str
    amount: int
    currency: str
    taken: bool = False
    """Whether a webhook about it was answered 200."""
    taken_at: float = 0.0
    """When it was so first, by time.monotonic()."""
    answers: Counter[str] = field(default_factory=Counter)


class Provider:
    """Charges, refunds and notifications, as they look from outside."""

    def __init__(self, secret: str, rng: random.Random) -> None:
        self._webhook = Webhook(secret)
        self._forger = Webhook("whsec_" + "Zm9yZ2VyeQ==")
        self._random = rng
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.charges: dict[str, Charge] = {}
        self.refunds: dict[str, int] = {}
        """By refund id: the amount."""
        self.refunded = Counter[str]()
        """By payment id: how much, each refund once."""
        self.notifications = Counter[str]()
        """By id: how often each was taken."""
        self.notifications_answer: str = "taken"
        """taken, refused (500) or hanging."""
        self.believed = Counter[str]()
        """Forged webhooks that were not turned away, by sort. There should be none."""
        self.turned_away = Counter[str]()

    @property
    def refund_url(self) -> str:
        return f"{self.url}/refunds"

    @property
    def notify_url(self) -> str:
        return f"{self.url}/notifications"

    async def open(self, gateway_url: str) -> None:
        self._gateway_url = gateway_url
        app = web.Application()
        app.router.add_post("/refunds", self._take_refund)
        app.router.add_post("/notifications", self._take_notification)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def charge(self, payment_id: str, amount: int, currency: str) -> Charge:
        """Take the money and say so, until it is heard."""
        charge = self.charges.setdefault(payment_id, Charge(payment_id, amount, currency))
        await self._deliver(charge, "payment.succeeded")
        return charge

    async def say_again(self, payment_id: str) -> None:
        """The same webhook once more, as providers do."""
        await self._deliver(self.charges[payment_id], "payment.succeeded", once=True)

    async def fail(self, payment_id: str, amount: int, currency: str) -> None:
        """Say that a payment failed; when that comes after its success it is out of order."""
        await self._deliver(Charge(payment_id, amount, currency), "payment.failed", once=True)

    async def forge(self, payment_id: str, amount: int, currency: str) -> None:
        """What nobody may believe: another's signature, an old one, another amount, an unknown payment."""
        sort = self._random.choice(("signature", "stale", "amount", "currency", "unknown"))
        when = datetime.now(UTC)
        webhook, name = self._webhook, payment_id
        if sort == "signature":
            webhook = self._forger
        elif sort == "stale":
            when -= timedelta(minutes=10)
        elif sort == "amount":
            amount -= 1
        elif sort == "currency":
            currency = "USD"
        else:
            head, _, stage = payment_id.rpartition(".")
            name = f"{head[:-4]}zzzz.{stage}"
        body = _body("payment.succeeded", name, amount, currency, "forged")
        status = await self._send(webhook, f"forged-{uuid.uuid4().hex}", when, body)
        if status is None or status == 503:
            return
        expected = {"signature": 401, "stale": 401, "amount": 422, "currency": 422, "unknown": 404}[sort]
        (self.turned_away if status == expected else self.believed)[sort] += 1

    async def _deliver(self, charge: Charge, kind: str, *, once: bool = False) -> None:
        body = _body(kind, charge.payment_id, charge.amount, charge.currency, f"bank:{charge.payment_id}")
        until = time.monotonic() + DELIVERY_SECONDS_MAX
        while True:
            status = await self._send(self._webhook, f"{charge.payment_id}/{kind}", datetime.now(UTC), body)
            charge.answers[str(status)] += 1
            if status == 200:
                charge.taken_at = charge.taken_at or time.monotonic()
                charge.taken = True
            if once or (status is not None and status < 500) or time.monotonic() > until:
                return
            await asyncio.sleep(self._random.uniform(*_PAUSE_SECONDS))

    async def _send(self, webhook: Webhook, message_id: str, when: datetime, body: str) -> int | None:
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(when.timestamp())),
            "webhook-signature": webhook.sign(message_id, when, body),
        }
        assert self._session is not None  # noqa: S101  (it was opened)
        try:
            async with self._session.post(
                f"{self._gateway_url}/v1/payments/webhook", data=body, headers=headers
            ) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def _take_refund(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        refund_id, payment_id = asked["refund_id"], asked["payment_id"]
        if refund_id not in self.refunds:
            self.refunds[refund_id] = asked["amount"]
            self.refunded[payment_id] += asked["amount"]
        task = asyncio.create_task(self._say_refunded(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return web.json_response({"status": "accepted"})

    async def _say_refunded(self, asked: dict[str, object]) -> None:
        amount = asked["amount"]
        assert isinstance(amount, int)  # noqa: S101  (it is ours who ask)
        body = _body(
            "refund.succeeded",
            str(asked["payment_id"]),
            amount,
            str(asked["currency"]),
            f"bank:{asked['refund_id']}",
            str(asked["refund_id"]),
        )
        until = time.monotonic() + DELIVERY_SECONDS_MAX
        while time.monotonic() < until:
            status = await self._send(self._webhook, f"{asked['refund_id']}/done", datetime.now(UTC), body)
            if status is not None and status < 500:
                return
            await asyncio.sleep(self._random.uniform(*_PAUSE_SECONDS))

    async def _take_notification(self, request: web.Request) -> web.Response:
        await request.read()
        if self.notifications_answer == "hanging":
            await asyncio.sleep(ANSWER_SECONDS_MAX * 4)
        if self.notifications_answer != "taken":
            return web.Response(status=500)
        self.notifications[request.headers["webhook-id"]] += 1
        return web.Response(status=204)


def _body(
    kind: str, payment_id: str, amount: int, currency: str, ref: str, refund_id: str | None = None
) -> str:
    data: dict[str, object] = {
        "payment_id": payment_id,
        "amount": amount,
        "currency": currency,
        "provider_ref": ref,
    }
    if refund_id is not None:
        data["refund_id"] = refund_id
    found = {"type": kind, "timestamp": datetime.now(UTC).isoformat(), "data": data}
    return orjson.dumps(found).decode()
