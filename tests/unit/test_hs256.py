"""The quick look at a token accepts nothing that PyJWT does not, and nothing otherwise than it does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hs256 import usual_claims

SECRET = b"a secret that only the tests know, 32+ bytes"
CLAIMS = {"sub": "ann", "exp": int(time.time()) + 3600}


def part(found: bytes) -> str:
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes, secret: bytes = SECRET) -> str:
    text = f"{part(header)}.{part(payload)}"
    return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def by_pyjwt(token: str) -> Any:
    """The claims that PyJWT finds, or None if it refuses the token."""
    unchecked = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
    try:
        return jwt.decode(
            token,
            SECRET,
            algorithms=["HS256"],
            options={"require": ["exp", "sub"], **unchecked},  # type: ignore[arg-type]
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        return None


def test_a_usual_token_is_recognised() -> None:
    for claims in (CLAIMS, CLAIMS | {"tier": "gold", "aud": "doorbuster", "nbf": 0, "iat": 1, "iss": "shop"}):
        assert usual_claims(jwt.encode(claims, SECRET, algorithm="HS256"), SECRET) == claims


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "...", "a.b.c",
        signed(b'{"alg":"none"}', json.dumps(CLAIMS).encode()),
        signed(b'{"alg":"HS512"}', json.dumps(CLAIMS).encode()),
        signed(b'{"alg":"HS256","crit":["exp"]}', json.dumps(CLAIMS).encode()),
        signed(b'{"alg":"HS256","b64":false}', json.dumps(CLAIMS).encode()),
        signed(b'{"alg":"HS256","kid":"1"}', json.dumps(CLAIMS).encode()),
        signed(b'["HS256"]', json.dumps(CLAIMS).encode()),
        signed(b'{"alg":"HS256"}', b'{"sub":"ann"}'),
        signed(b'{"alg":"HS256"}', b'{"exp":1}'),
        signed(b'{"alg":"HS256"}', b'{"exp":1,"sub":7}'),
        signed(b'{"alg":"HS256"}', b'{"exp":null,"sub":"ann"}'),
        signed(b'{"alg":"HS256"}', b'{"exp":1,"sub":"ann","jti":7}'),
        signed(b'{"alg":"HS256"}', b"[]"),
        signed(b'{"alg":"HS256"}', b"not JSON"),
        signed(b'{"alg":"HS256"}', json.dumps(CLAIMS).encode(), b"another secret, which is not ours"),
        signed(b'{"alg":"HS256"}', json.dumps(CLAIMS).encode()) + "=",
        signed(b'{"alg":"HS256"}', json.dumps(CLAIMS).encode())[:-1],
        signed(b'{"alg":"HS256"}', json.dumps(CLAIMS).encode()) + ".x",
    ],
)  # fmt: skip
def test_what_is_unusual_is_left_to_pyjwt(token: str) -> None:
    assert usual_claims(token, SECRET) is None


@given(
    payload=st.dictionaries(
        st.sampled_from(["sub", "exp", "nbf", "aud", "tier", "iat", "iss", "jti", "x"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text())),
    ),
    header=st.sampled_from([b'{"alg":"HS256","typ":"JWT"}', b'{"alg":"HS256"}', b'{"alg":"HS384"}']),
    cut=st.integers(min_value=-3, max_value=0),
)
def test_what_it_accepts_pyjwt_accepts_with_the_same_claims(
    payload: dict[str, Any], header: bytes, cut: int
) -> None:
    token = signed(header, json.dumps(payload).encode())
    token = token[:cut] if cut else token
    claims = usual_claims(token, SECRET)
    assert claims is None or claims == by_pyjwt(token)
