"""User tokens, for trying things out and for load tests. A storefront's come from its own issuer."""

from __future__ import annotations

import jwt


def make_token(secret: str, user: str, *, tier: str | None, ttl_s: int, now_s: int) -> str:
    """A token that says who the user is, until `now_s + ttl_s`."""
    claims: dict[str, object] = {"sub": user, "aud": "doorbuster", "iat": now_s, "exp": now_s + ttl_s}
    if tier is not None:
        claims["tier"] = tier
    return jwt.encode(claims, secret, algorithm="HS256")
