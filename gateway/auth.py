"""Who is asking: a user with a JWT, or a service with its key."""

from __future__ import annotations

import hmac
import math
from typing import Any, NamedTuple

import jwt
from aiohttp import web

from gateway.hs256 import usual_claims
from gateway.jwks import KeySet
from gateway.problems import Problem
from reservation.clock import StoreClock
from reservation.text import is_printable

AUDIENCE = "doorbuster"
USER_CHARS_MAX = 128
TOKEN_CHARS_MAX = 8_192
CACHED_TOKENS_MAX = 50_000
TRUSTED_MS = 300_000
"""How long a token that was good needs no second look. A key that was taken back lives on as long."""
_CLAIMS_ARE_CHECKED_HERE = {
    "require": ["exp", "sub"],
    "verify_exp": False,  # by the store's clock, not this machine's
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "enforce_minimum_key_length": False,  # roles.py warns of a short secret
}


class User(NamedTuple):
    id: str
    tier: str | None


class _Verified(NamedTuple):
    user: User
    until_ms: float


class Authenticator:
    """Verifies tokens by the store's clock, and remembers for a while those that were good."""

    def __init__(
        self, clock: StoreClock, *, jwt_secret: str | None, jwks: KeySet | None, service_key: str
    ) -> None:
        self._clock = clock
        self._secret = jwt_secret.encode() if jwt_secret is not None else None
        self._jwks = jwks
        self._service_key = service_key.encode()
        self._verified: dict[str, _Verified] = {}

    def at_once(self, authorization: str) -> User | None:
        """The user of an Authorization header, if that takes no more than a look; else ask `user`."""
        if not authorization.startswith("Bearer "):
            return None
        token = authorization[len("Bearer ") :]
        verified = self._verified.get(token)
        if verified is not None and verified.until_ms > self._clock.now_ms():
            return verified.user
        if self._secret is None or not 0 < len(token) <= TOKEN_CHARS_MAX or not token.isascii():
            return None
        claims = usual_claims(token, self._secret)
        if claims is None:
            return None
        try:
            verified = self._check(claims)
        except Problem:
            return None
        self._remember(token, verified)
        return verified.user

    async def user(self, request: web.Request) -> User:
        """The user who asks. Raises Problem."""
        token = _bearer(request)
        verified = self._verified.get(token)
        if verified is None or verified.until_ms <= self._clock.now_ms():
            if self._is_service(token):
                raise Problem("forbidden", "This is for users: it takes a user's token.")
            self._verified.pop(token, None)
            verified = await self._verify(token)
            self._remember(token, verified)
        return verified.user

    async def anyone(self, request: web.Request) -> User | None:
        """The user who asks, if it is one. Who says who they are must be right. Raises Problem."""
        if "Authorization" not in request.headers or self._is_service(_bearer(request)):
            return None
        return await self.user(request)

    def is_service(self, request: web.Request) -> bool:
        """Whether a service asks, with its key."""
        try:
            return self._is_service(_bearer(request))
        except Problem:
            return False

    async def service(self, request: web.Request) -> None:
        """Let services through. Raises Problem."""
        token = _bearer(request)
        if self._is_service(token):
            return
        await self._verify(token)  # a user's good token is understood, and not enough
        raise Problem("forbidden", "This is for services: it takes a service key.")

    def _remember(self, token: str, verified: _Verified) -> None:
        if len(self._verified) >= CACHED_TOKENS_MAX:
            self._verified.clear()
        self._verified[token] = verified

    def _is_service(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._service_key)

    async def _verify(self, token: str) -> _Verified:
        try:
            header = jwt.get_unverified_header(token)
            key, algorithms = await self._key(header)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                options=_CLAIMS_ARE_CHECKED_HERE,  # type: ignore[arg-type]
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise _unauthenticated("The token is not valid.") from None
        return self._check(claims)

    def _check(self, claims: dict[str, Any]) -> _Verified:
        """What the claims of a token whose signature is right say. Raises Problem."""
        expires_at_ms = _ms(claims["exp"])
        not_before_ms = _ms(claims.get("nbf", 0))
        if expires_at_ms is None or not_before_ms is None:
            raise _unauthenticated("The token's times are not numbers.")
        now_ms = self._clock.now_ms()
        if expires_at_ms <= now_ms:
            raise _unauthenticated("The token has expired.")
        if not_before_ms > now_ms:
            raise _unauthenticated("The token is not valid yet.")
        audience = claims.get("aud", AUDIENCE)
        if audience != AUDIENCE and not (isinstance(audience, list) and AUDIENCE in audience):
            raise _unauthenticated("The token is for another audience.")
        user, tier = claims["sub"], claims.get("tier")
        if not is_printable(user, USER_CHARS_MAX):
            raise _unauthenticated(f"The token's sub must be 1 to {USER_CHARS_MAX} printable characters.")
        if tier is not None and not is_printable(tier, USER_CHARS_MAX):
            raise _unauthenticated("The token's tier must be a printable string.")
        return _Verified(User(user, tier), min(expires_at_ms, now_ms + TRUSTED_MS))

    async def _key(self, header: dict[str, Any]) -> tuple[Any, list[str]]:
        """The key that may verify this token, and with which algorithms. Never by the token's choice."""
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._secret is not None:
            return self._secret, ["HS256"]
        if self._jwks is not None and algorithm in self._jwks.ALGORITHMS:
            key = await self._jwks.key(header.get("kid"), str(algorithm))
            if key is not None:
                return key, [str(algorithm)]
        raise _unauthenticated("The token is not signed in a way that is accepted here.")


def _bearer(request: web.Request) -> str:
    given = request.headers.getall("Authorization", [])
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_CHARS_MAX or not token.isascii():
        raise _unauthenticated("There must be one Authorization: Bearer <token>.")
    return token


def _unauthenticated(detail: str) -> Problem:
    return Problem("unauthenticated", detail)


def _ms(seconds: object) -> float | None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    try:
        ms = float(seconds) * 1000
    except OverflowError:  # JSON's integers have no end
        return None
    return ms if math.isfinite(ms) else None
