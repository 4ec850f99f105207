"""The head of an answer: the little of it that a load generator must know. Pure."""

from __future__ import annotations

from typing import NamedTuple

HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 1024 * 1024
BODILESS = frozenset({b"204", b"304"})
"""Answers with these end with their head, whatever it says."""


class Malformed(Exception):
    """Not an answer that this generator understands. It knows no chunks and no interim answers."""


class Head(NamedTuple):
    """Of one answer. `length` is that of the whole answer in bytes, its head included."""

    status: int
    length: int
    closes: bool
    says_when: bool
    """It has a Retry-After. Only looked for with a 503."""


def head_of(data: bytes) -> Head | None:
    """What these bytes, an answer's first, say. None when the head goes on. Raises Malformed."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > HEAD_BYTES_MAX:
            raise Malformed
        return None
    # In lower case names can be found without looking at every line.
    head = data[: end + 2].lower()
    at = head.find(b"\r\ncontent-length:")
    # "HTTP/1.1 201 Created": the status is in the same place always.
    status = head[9:12]
    if not (head.startswith(b"http/1.") and status.isdigit()):
        raise Malformed
    if status in BODILESS:
        body_bytes = 0
    elif at < 0:
        raise Malformed
    else:
        length = head[at + 17 : head.find(b"\r\n", at + 17)].strip()
        if not length.isdigit() or len(length) > 7 or (body_bytes := int(length)) > BODY_BYTES_MAX:
            raise Malformed
    closes = not head.startswith(b"http/1.1")
    at = head.find(b"\r\nconnection:")
    if at >= 0:
        closes |= b"close" in head[at : head.find(b"\r\n", at + 13)]
    says_when = status == b"503" and b"\r\nretry-after:" in head
    return Head(int(status), end + 4 + body_bytes, closes, says_when)
