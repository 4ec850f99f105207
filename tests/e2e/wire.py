"""What a refusal looks like on the wire, and requests that no HTTP library would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from multidict import CIMultiDict

from gateway.problems import CODES
from tests.stack import SERVICE_KEY, Answer, Client, sign, token

MEMBERS = {"type", "title", "status", "detail", "code"}


def assert_problem(answer: Answer, code: str, path: str | None = None) -> dict[str, Any]:
    """The answer is the documented problem of this code; for invalid_request, about `path`."""
    problem = answer.body
    status = CODES[code][0]
    assert (answer.status, answer.code) == (status, code), answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (problem["type"], problem["status"]) == (f"/problems/{code}", status)
    assert problem["title"]
    assert problem["detail"]
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    allowed = MEMBERS | {"retry_after_s", "opens_at", "reason", "errors", "trace_id"}
    assert allowed >= problem.keys() >= MEMBERS
    if code == "invalid_request":
        assert problem["errors"], problem
        assert all(error.keys() == {"path", "message"} for error in problem["errors"]), problem
        assert all(error["message"] for error in problem["errors"]), problem
    if path is not None:
        assert path in {error["path"] for error in problem["errors"]}, problem
    return dict(problem)


async def send(
    url: str, *parts: bytes, after: asyncio.Event | None = None, then: str = "read", seconds_max: float = 5
) -> Answer | None:
    """Send the first part, and the others once `after` is set. Then read one answer, None if the connection
    closes without one; or just `close`."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(seconds_max):
            for part in parts:
                writer.write(part)
                await writer.drain()
                if after is not None:
                    await after.wait()
            if then == "close":
                return None
            if then == "half-close":
                writer.write_eof()
            return await _answer(reader)
    finally:
        writer.transport.abort() if then == "close" else writer.close()


async def _answer(reader: asyncio.StreamReader) -> Answer | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    headers = CIMultiDict(tuple(line.split(": ", 1)) for line in head[1:] if line)
    raw = await reader.readexactly(int(headers.get("Content-Length", 0)))
    is_json = "json" in headers.get("Content-Type", "")
    return Answer(int(head[0].split()[1]), json.loads(raw) if is_json else raw, headers)


def request(
    method: str, path: str, body: bytes | None = None, headers: Sequence[tuple[str, bytes | str]] = ()
) -> bytes:
    """A request, byte for byte as told. The body is measured, unless a header says otherwise."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: shop", b"Connection: close"]
    for name, value in headers:
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    said = {name.lower() for name, _ in headers}
    if body is not None and not said & {"content-length", "transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


@dataclass(frozen=True)
class Scene:
    """A campaign with one unit held for ann, who has asked to pay for it."""

    campaign: str
    document: Mapping[str, Any]
    held: str
    payment: str

    def path(self, template: str) -> str:
        return template.format(campaign=self.campaign, held=self.held, payment=self.payment)

    async def assert_untouched(self, client: Client) -> None:
        offers = await client.audit(self.campaign)
        assert offers == {"phone": {"sku": "phone", "stock": 100, "held": 1, "sold": 0, "available": 99}}
        listed = await client.call("GET", f"/v1/reservations?campaign={self.campaign}", user="ann")
        assert [(one["id"], one["state"], one["version"]) for one in listed.body["reservations"]] == [
            (self.held, "held", 2)
        ]
        shown = (await client.call("GET", f"/v1/campaigns/{self.campaign}")).body
        assert shown | self.document == shown, "the document is as it was"
        assert shown["phase"] == "open"


async def set_scene(client: Client) -> Scene:
    campaign = await client.create(per_user=5)
    held = (await client.reserve(campaign, "ann")).body["id"]
    payment = (await client.pay(held, "ann")).body["payment_id"]
    shown = (await client.call("GET", f"/v1/campaigns/{campaign}")).body
    changing = ("phase", "server_time", "offers")
    document = {name: value for name, value in shown.items() if name not in changing}
    return Scene(campaign, document, held, payment)


TAKES_BODY = {
    "put": ("PUT", "/v1/campaigns/{campaign}", "service"),
    "reserve": ("POST", "/v1/campaigns/{campaign}/reservations", "ann"),
    "quote": ("POST", "/v1/campaigns/{campaign}/quote", "ann"),
    "join": ("POST", "/v1/campaigns/{campaign}/waitlist", "ann"),
    "amend": ("PATCH", "/v1/reservations/{held}", "ann"),
    "report": ("POST", "/v1/orders", "service"),
    "pay with order": ("POST", "/v1/orders/order-1/payments", "service"),
    "act": ("POST", "/v1/campaigns/{campaign}/actions", "service"),
    "restock": ("POST", "/v1/campaigns/{campaign}/offers/phone/stock", "service"),
    "pay": ("POST", "/v1/reservations/{held}/payments", "ann"),
    "webhook": ("POST", "/v1/payments/webhook", "provider"),
    "sandbox": ("POST", "/sandbox/payments/{payment}", "anyone"),
    "sandbox refund": ("POST", "/sandbox/refunds", "provider"),
}
"""Every route that takes a body, and whose it is."""


def credentials(who: str, body: bytes = b"") -> dict[str, str]:
    """The headers that show who sends."""
    if who == "anyone":
        return {}
    if who == "provider":
        return sign(body)
    return {"Authorization": f"Bearer {SERVICE_KEY if who == 'service' else token(who)}"}
