"""Requests that reserve one unit: the bytes of the n-th, as cheap as can be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult

RequestOf = Callable[[int], bytes]
"""The whole n-th request, from its method to the end of its body."""


def reservations(
    url: SplitResult, shoppers: Sequence[tuple[str, str]], *, run: str, sku: str, quantity: int = 1
) -> RequestOf:
    """Shoppers, each a user and a token, in turn, over and over; all want the same."""
    body = json.dumps({"sku": sku, "quantity": quantity}, separators=(",", ":")).encode()
    return requests_of(url, [(token, body) for _user, token in shoppers], run=run)


def requests_of(url: SplitResult, asks: Sequence[tuple[str, bytes]], *, run: str) -> RequestOf:
    """Asks, each a token and a body, in turn, over and over.

    Every request has an Idempotency-Key of its own, `{run}-{n}`: another run must have another prefix, or its
    requests are retries of this one's.
    """
    if not asks:
        raise ValueError("no shoppers")
    path = url.path or "/"
    first, last = [], []
    for token, body in asks:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: {run}-"
        )
        if not head.isascii() or head.count("\r\n") != 5:
            raise ValueError("a token, the run or the URL has characters that no header may have")
        first.append(head.encode())
        last.append(b"\r\n\r\n" + body)
    count = len(first)

    def request_of(n: int) -> bytes:
        turn = n % count
        return b"%b%d%b" % (first[turn], n, last[turn])

    return request_of
