"""A whole Doorbuster for end-to-end tests, and a client of it that knows nothing but HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from tests.commands import doorbuster
from tests.servers import free_port, wait_until

JWT_SECRET = "a secret that only the tests know, 32+ bytes"
SERVICE_KEY = "dbk_service-key-of-the-tests"
PSP_KEY = b"what the provider signs with"
NOTIFY_KEY = b"what the merchant is told is signed with"
SECRETS = {
    "DOORBUSTER_JWT_SECRET": JWT_SECRET,
    "DOORBUSTER_SERVICE_KEY": SERVICE_KEY,
    "DOORBUSTER_PSP_SECRET": "whsec_" + base64.b64encode(PSP_KEY).decode(),
    "DOORBUSTER_NOTIFY_SECRET": "whsec_" + base64.b64encode(NOTIFY_KEY).decode(),
}
COMMAND = [sys.executable, "-m", "doorbuster"]


@dataclass
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str | None:
        return self.body.get("code") if isinstance(self.body, dict) else None


@dataclass
class Stack:
    """Where a running stack is, and its process."""

    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    log: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `doorbuster` command against this stack."""
        return doorbuster(*arguments, "--data-dir", str(self.data_dir))


@contextmanager
def stack(data_dir: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """`doorbuster up`, ready to be used, and stopped as an operator would stop it."""
    data_dir.mkdir(exist_ok=True)
    log, port = data_dir / "up.log", free_port()
    command = [*COMMAND, "up", "--port", str(port), "--data-dir", str(data_dir), *options]
    with log.open("ab") as output:
        start = log.stat().st_size
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **SECRETS, **(environment or {})}
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return f"ready http://127.0.0.1:{port}\n".encode() in log.read_bytes()[start:]

        wait_until(ready, "doorbuster up is ready")
        yield Stack(f"http://127.0.0.1:{port}", data_dir, process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def sale(**changes: Any) -> dict[str, Any]:
    """A flash sale that is open, with an id of its own."""
    now = datetime.now(UTC)
    document: dict[str, Any] = {
        "id": f"sale-{uuid.uuid4().hex[:12]}",
        "kind": "flash_sale",
        "currency": "CNY",
        "opens_at": (now - timedelta(hours=1)).isoformat(),
        "closes_at": (now + timedelta(hours=1)).isoformat(),
        "offers": [{"sku": "phone", "title": "Phone", "price": 5000, "stock": 100}],
    }
    return document | changes


def presale(**changes: Any) -> dict[str, Any]:
    """A presale in its deposit window, with an id of its own."""
    now = datetime.now(UTC)
    document = sale(
        id=f"presale-{uuid.uuid4().hex[:12]}",
        kind="presale",
        balance_opens_at=(now + timedelta(hours=2)).isoformat(),
        balance_closes_at=(now + timedelta(hours=3)).isoformat(),
        offers=[{"sku": "phone", "price": 5000, "stock": 100, "deposit": 100, "deposit_worth": 200}],
    )
    return document | changes


def in_phase(document: dict[str, Any], phase: str) -> dict[str, Any]:
    """A presale with its windows moved so that it is in this phase now."""
    hours = {
        "scheduled": (1, 2, 3, 4),
        "open": (-1, 1, 2, 3),
        "between": (-2, -1, 1, 2),
        "balance": (-3, -2, -1, 1),
        "closed": (-4, -3, -2, -1),
    }[phase]
    now = datetime.now(UTC)
    times = [(now + timedelta(hours=one)).isoformat() for one in hours]
    names = ("opens_at", "closes_at", "balance_opens_at", "balance_closes_at")
    return document | dict(zip(names, times, strict=True))


def trade_in(**changes: Any) -> dict[str, Any]:
    """An open trade-in: an order of 3000 or more for a TV entitles to two units."""
    document = sale(
        id=f"trade-in-{uuid.uuid4().hex[:12]}",
        kind="trade_in",
        entitlement={"skus": ["tv"], "min_spend": 3000, "grants": 2},
        offers=[{"sku": "soundbar", "price": 900, "stock": 100}],
    )
    return document | changes


def sign(
    body: bytes, *, key: bytes = PSP_KEY, at: float | None = None, message_id: str = "msg_1"
) -> dict[str, str]:
    """The headers of a webhook, by the Standard Webhooks specification and no library."""
    stamp = str(int(time.time() if at is None else at))
    signed = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }


def token(user: str, *, tier: str | None = None, **claims: Any) -> str:
    given = {"sub": user, "exp": int(time.time()) + 3600} | ({"tier": tier} if tier else {}) | claims
    return jwt.encode(given, JWT_SECRET, algorithm="HS256")


@dataclass
class Client:
    """HTTP, and the few calls that most tests make."""

    url: str
    session: aiohttp.ClientSession
    _tokens: dict[str, str] = field(default_factory=dict)

    async def call(
        self,
        method: str,
        path: str,
        *,
        user: str | None = None,
        service: bool = False,
        json_body: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if user is not None:
            sent["Authorization"] = f"Bearer {self._tokens.setdefault(user, token(user))}"
        if service:
            sent["Authorization"] = f"Bearer {SERVICE_KEY}"
        if json_body is not None:
            data = json.dumps(json_body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.url + path, data=data, headers=sent) as answer:
            raw = await answer.read()
            is_json = "json" in answer.content_type and raw
            return Answer(answer.status, json.loads(raw) if is_json else raw, answer.headers)

    async def create(self, **changes: Any) -> str:
        document = sale(**changes)
        answer = await self.call("PUT", f"/v1/campaigns/{document['id']}", service=True, json_body=document)
        assert answer.status == 201, answer
        return str(document["id"])

    async def reserve(
        self, campaign: str, user: str, *, key: str | None = None, sku: str = "phone", **body: Any
    ) -> Answer:
        return await self.call(
            "POST",
            f"/v1/campaigns/{campaign}/reservations",
            user=user,
            json_body={"sku": sku, **body},
            headers={"Idempotency-Key": key or uuid.uuid4().hex},
        )

    async def put(self, document: dict[str, Any]) -> Answer:
        return await self.call("PUT", f"/v1/campaigns/{document['id']}", service=True, json_body=document)

    async def report(
        self, order: str, user: str, *lines: tuple[str, int], changes: dict[str, Any] | None = None
    ) -> Answer:
        """Report a paid main order of these (sku, amount)."""
        body = {
            "order_id": order,
            "user": user,
            "lines": [{"sku": sku, "category": "any", "amount": amount} for sku, amount in lines],
            "paid_at": datetime.now(UTC).isoformat(),
        }
        return await self.call("POST", "/v1/orders", service=True, json_body=body | (changes or {}))

    async def cancel_order(self, order: str) -> Answer:
        return await self.call("POST", f"/v1/orders/{order}/cancel", service=True)

    async def cancel(self, reservation: str, user: str) -> Answer:
        return await self.call("DELETE", f"/v1/reservations/{reservation}", user=user)

    async def amend(self, reservation: str, user: str, quantity: Any) -> Answer:
        path = f"/v1/reservations/{reservation}"
        return await self.call("PATCH", path, user=user, json_body={"quantity": quantity})

    async def quote(self, campaign: str, user: str, **body: Any) -> Answer:
        return await self.call("POST", f"/v1/campaigns/{campaign}/quote", user=user, json_body=body)

    async def join(self, campaign: str, user: str, **body: Any) -> Answer:
        path = f"/v1/campaigns/{campaign}/waitlist"
        return await self.call("POST", path, user=user, json_body={"sku": "phone", **body})

    async def paid(self, reservation: str, user: str, stage: str = "full") -> Any:
        """The reservation, once this stage of it has been paid for."""
        payment = await self.pay(reservation, user, stage)
        assert payment.status == 200, payment
        settled = await self.settle_payment(payment.body["payment_id"])
        assert settled.body == {"webhook_status": 200}, settled
        return await self.reservation(reservation, user)

    async def pay(self, reservation: str, user: str, stage: str = "full") -> Answer:
        path = f"/v1/reservations/{reservation}/payments"
        return await self.call("POST", path, user=user, json_body={"stage": stage})

    async def settle_payment(self, payment_id: str, outcome: str = "succeeded") -> Answer:
        return await self.call("POST", f"/sandbox/payments/{payment_id}", json_body={"outcome": outcome})

    async def notify(self, kind: str, payment_id: str, amount: int, **changes: Any) -> Answer:
        """A webhook from a provider that is not the sandbox."""
        data = {
            "payment_id": payment_id,
            "amount": amount,
            "currency": "CNY",
            "provider_ref": "ref-1",
        } | changes
        found = {"type": kind, "timestamp": datetime.now(UTC).isoformat(), "data": data}
        body = json.dumps(found).encode()
        return await self.call("POST", "/v1/payments/webhook", data=body, headers=sign(body))

    async def reservation(self, reservation: str, user: str) -> Any:
        answer = await self.call("GET", f"/v1/reservations/{reservation}", user=user)
        assert answer.status == 200, answer
        return answer.body

    async def in_state(self, reservation: str, user: str, state: str, seconds_max: float = 20) -> Any:
        """The reservation, once it is in this state."""
        return await eventually(
            lambda: self.reservation(reservation, user), lambda found: found["state"] == state, seconds_max
        )

    async def audit(self, campaign: str) -> Any:
        """The campaign's audit, which must find nothing wrong; its offers by SKU."""
        answer = await self.call("GET", f"/v1/campaigns/{campaign}/audit", service=True)
        assert answer.status == 200, answer
        assert answer.body["ok"], answer.body
        return {offer["sku"]: offer for offer in answer.body["campaigns"][0]["offers"]}


async def eventually(look: Callable[[], Any], enough: Callable[[Any], bool], seconds_max: float = 20) -> Any:
    """What `look` finds, once it is enough."""
    until = time.monotonic() + seconds_max
    async with asyncio.timeout(seconds_max):
        while True:
            found = await look()
            if enough(found):
                return found
            if time.monotonic() > until:  # what cancelled the look was forgotten: see reservation.tasks
                raise TimeoutError(f"not within {seconds_max:g} s: {found!r}")
            await asyncio.sleep(0.02)
