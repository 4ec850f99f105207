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
    """Shoppers, each a user and a token, in turn, over and over.

    Every request has an Idempotency-Key of its own, `{run}-{n}`: another run must have another prefix, or its
    requests are retries of this one's.
    """
    if not shoppers:
        raise ValueError("no shoppers")
    path = url.path or "/"
    body = json.dumps({"sku": sku, "quantity": quantity}, separators=(",", ":"))
    heads = [
        f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\nIdempotency-Key: {run}-"
        for _user, token in shoppers
    ]
    for head in heads:
        if not head.isascii() or head.count("\r\n") != 5:
            raise ValueError("a token, the run or the URL has characters that no header may have")
    first = [head.encode() for head in heads]
    count = len(first)
    last = f"\r\n\r\n{body}".encode()

    def request_of(n: int) -> bytes:
        return b"%b%d%b" % (first[n % count], n, last)

    return request_of
