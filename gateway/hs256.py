"""Tokens that are signed with HS256 and in no way unusual, verified in a few microseconds.

In the second in which a sale opens, nearly every token comes for the first time. Whatever is not
recognised here is not refused: PyJWT looks at it, and has the last word.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import Any

import orjson


def usual_claims(token: str, secret: bytes) -> dict[str, Any] | None:
    """The claims of a token that this secret has signed, or None if it may need a closer look."""
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    if not _is_usual(header):
        return None
    expected = urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=")
    if not hmac.compare_digest(expected, signature.encode()):
        return None
    try:
        claims = _decode(payload)
    except ValueError:
        return None
    if not isinstance(claims, dict) or not claims.keys() <= _USUAL_CLAIMS or claims.get("exp") is None:
        return None
    return claims if isinstance(claims.get("sub"), str) else None


_USUAL_CLAIMS = {"sub", "exp", "nbf", "aud", "tier", "iat", "iss"}
"""Those that we check ourselves, and those that nobody does. PyJWT has rules for others."""


@lru_cache(maxsize=64)
def _is_usual(header: str) -> bool:
    try:
        found = _decode(header)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("alg") == "HS256" and found.keys() <= {"alg", "typ"}


def _decode(part: str) -> Any:
    return orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
