"""Who asks is known by a signature, or not known."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway import jwks
from gateway.auth import TRUSTED_MS, Authenticator, User
from gateway.jwks import KeySet
from gateway.problems import Problem
from reservation.clock import StoreClock
from tests.e2e.wire import Scene, assert_problem, request, send
from tests.stack import JWT_SECRET, SERVICE_KEY, Client, Stack, token

pytestmark = pytest.mark.usefixtures("clean_log")

LATER = int(time.time()) + 3600
ANN = {"sub": "ann", "exp": LATER}
RSA, OTHER_RSA = (rsa.generate_private_key(65_537, 2_048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def b64(found: bytes | object) -> str:
    raw = found if isinstance(found, bytes) else json.dumps(found).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: object, claims: object = ANN, *, key: bytes = b"", digest: str = "sha256") -> str:
    """A token that no library would make. Signed by HMAC if there is a key."""
    signed = f"{b64(header)}.{b64(claims)}"
    signature = hmac.new(key, signed.encode(), digest).digest() if key else b""
    return f"{signed}.{b64(signature)}"


def with_claims(**changes: Any) -> str:
    """A token that is signed as it must be. A claim that is ... is left out."""
    claims = {name: value for name, value in (ANN | changes).items() if value is not ...}
    return forged({"alg": "HS256", "typ": "JWT"}, claims, key=JWT_SECRET.encode())


GOOD = token("ann")
SECRET = JWT_SECRET.encode()
BAD_TOKENS = {
    "garbage": "garbage",
    "dots": "..",
    "many dots": "a.b.c.d.e",
    "no signature": GOOD.rsplit(".", 1)[0],
    "an empty signature": GOOD.rsplit(".", 1)[0] + ".",
    "half a signature": GOOD[:-10],
    "two tokens": f"{GOOD} {GOOD}",
    "a token in quotes": f'"{GOOD}"',
    "8,100 characters": "a" * 8_100,
    "header no object": forged([], key=SECRET),
    "claims no object": forged({"alg": "HS256"}, [], key=SECRET),
    "claims nested deeply": f"{b64({'alg': 'HS256'})}.{b64(b'[' * 4_000)}.{b64(b'x')}",
    "header nested deeply": f"{b64(b'[' * 4_000)}.{b64(ANN)}.{b64(b'x')}",
    "another secret": forged({"alg": "HS256"}, key=b"x" * 32),
    "the secret, nearly": forged({"alg": "HS256"}, key=SECRET + b" "),
    "another's signature": f"{b64({'alg': 'HS256'})}.{b64(ANN | {'sub': 'bob'})}.{GOOD.rsplit('.', 1)[1]}",
    **{f"alg {name!r}": forged({"alg": name}) for name in ("none", "None", "NONE", "nOnE", "none ", "", " ")},
    **{f"signed {name!r}": forged({"alg": name}, key=SECRET) for name in ("none", "hs256", "HS256 ", "HS1")},
    **{f"alg {name!r:.20}": forged({"alg": name}, key=SECRET) for name in (None, 1, [], ["HS256"], {}, True)},
    "no alg": forged({"typ": "JWT"}, key=SECRET),
    "HS384": forged({"alg": "HS384"}, key=SECRET, digest="sha384"),
    "HS512": forged({"alg": "HS512"}, key=SECRET, digest="sha512"),
    "HS384 that says HS256": forged({"alg": "HS256"}, key=SECRET, digest="sha384"),
    "RS256": jwt.encode(ANN, RSA, "RS256"),
    "PS256": jwt.encode(ANN, RSA, "PS256"),
    "ES256": jwt.encode(ANN, EC, "ES256"),
    "EdDSA": jwt.encode(ANN, ED, "EdDSA"),
    "RS256 that brings its key": jwt.encode(
        ANN, RSA, "RS256", headers={"jwk": RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True)}
    ),
    "RS256 that says where its key is": jwt.encode(ANN, RSA, "RS256", headers={"jku": "http://127.0.0.1:1/"}),
    "kid no string": forged({"alg": "HS256", "kid": ["x"]}, key=SECRET),
    "crit": forged({"alg": "HS256", "crit": ["x"], "x": 1}, key=SECRET),
    "b64 false": forged({"alg": "HS256", "crit": ["b64"], "b64": False}, key=SECRET),
}  # fmt: skip
BAD_CLAIMS: dict[str, list[Any]] = {
    "exp": [
        ..., None, str(LATER), "soon", 0, -1, 1, int(time.time()) - 1, time.time() - 0.5, True, [LATER], {},
        float("nan"), float("inf"), -float("inf"), 10**400, -(10**400), 1e308,
    ],
    "nbf": [LATER, int(time.time()) + 7_200, str(LATER), "0", None, True, [], float("nan"), 10**400],
    "sub": [
        ..., None, "", 1, 1.5, True, [], ["ann"], {}, "a" * 129, "\0", "ann\0", "a\nb", "\x7f", "\x85",
        "\u2028", "\ud800", "ann\udfff",
    ],
    "tier": ["", 1, True, [], ["gold"], {}, "a" * 129, "gold\0", "a\nb", "\ud800", "\u2029"],
    "aud": ["", "other", "Doorbuster", "doorbuster ", None, 1, True, [], ["other"], [["doorbuster"]], {}],
}  # fmt: skip


def bearer(*tokens: str) -> list[tuple[str, bytes | str]]:
    return [("Authorization", f"Bearer {one}") for one in tokens]


@pytest.mark.parametrize("bad", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_token_that_is_not_ours_is_nobody(up: Stack, untouched: Scene, bad: str) -> None:
    for path in ("/v1/reservations", f"/v1/campaigns/{untouched.campaign}/audit"):
        answer = await send(up.url, request("GET", path, None, bearer(bad)))
        assert answer is not None
        assert_problem(answer, "unauthenticated")


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        pytest.param(claim, value, id=f"{claim}-{place}")  # not the value: a time is another in each run
        for claim, values in BAD_CLAIMS.items()
        for place, value in enumerate(values)
    ],
)
async def test_a_claim_that_is_wrong_is_nobodys(up: Stack, claim: str, value: object) -> None:
    """On a service's route too: there a good user would be forbidden."""
    bad = with_claims(**{claim: value})
    for path in ("/v1/reservations", "/v1/campaigns/any/audit"):
        answer = await send(up.url, request("GET", path, None, bearer(bad)))
        assert answer is not None
        assert_problem(answer, "unauthenticated")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": LATER + 0.5},
        {"exp": 1e15},
        {"nbf": 0},
        {"nbf": time.time() - 1},
        {"iat": LATER},
        {"aud": "doorbuster"},
        {"aud": ["other", "doorbuster"]},
        {"tier": "gold"},
        {"tier": None},
        {"sub": "a"},
        {"sub": "a" * 128},
        {"sub": "安 d'Ann <ann@例え.jp> 🙂"},
        {"sub": "a b/c@d#e%00{}"},
        {"iss": "anybody", "roles": ["admin"], "sku": "phone"},
    ],
    ids="-".join,
)
async def test_a_token_that_is_ours_is_its_user(client: Client, claims: dict[str, Any]) -> None:
    campaign = await client.create()
    sent = {"Authorization": f"Bearer {with_claims(**claims)}"}
    path = f"/v1/campaigns/{campaign}/reservations"
    held = await client.call("POST", path, headers=sent, json_body={"sku": "phone"})
    assert (held.status, held.body["user"]) == (201, claims.get("sub", "ann"))
    listed = await client.call("GET", f"/v1/reservations?campaign={campaign}", headers=sent)
    assert listed.body["reservations"] == [held.body]
    await client.audit(campaign)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([], "unauthenticated"),
        ([b""], "unauthenticated"),
        ([b"Bearer"], "unauthenticated"),
        ([b"Bearer "], "unauthenticated"),
        ([f"Basic {base64.b64encode(b'ann:secret').decode()}"], "unauthenticated"),
        ([f"Basic {GOOD}"], "unauthenticated"),
        ([f"Token {GOOD}"], "unauthenticated"),
        ([f"Bearer{GOOD}"], "unauthenticated"),
        ([GOOD], "unauthenticated"),
        ([f"Bearer, {GOOD}"], "unauthenticated"),
        ([f"Bearer {GOOD}, Bearer {GOOD}"], "unauthenticated"),
        (["Bearer é"], "unauthenticated"),
        ([b"Bearer \xff"], "unauthenticated"),
        ([b"Bearer \xed\xa0\x80"], "unauthenticated"),
        ([f"Bearer {GOOD}", f"Bearer {GOOD}"], "unauthenticated"),
        ([f"Bearer {GOOD}", f"Bearer {token('bob')}"], "unauthenticated"),
        ([f"Bearer {SERVICE_KEY}", f"Bearer {GOOD}"], "unauthenticated"),
        ([b"Bearer a\x00b"], "malformed_request"),
        ([b"Bearer " + b"a" * 9_000], "malformed_request"),
    ],
    ids=lambda given: f"{given!r:.60}",
)
async def test_there_is_one_bearer_or_nobody(up: Stack, given: list[bytes | str], code: str) -> None:
    headers = [("Authorization", one) for one in given]
    for path in ("/v1/reservations", "/v1/campaigns/any/audit"):
        answer = await send(up.url, request("GET", path, None, headers))
        assert answer is not None
        assert_problem(answer, code)


async def test_the_scheme_is_spelled_in_any_case(client: Client) -> None:
    for scheme in ("bearer", "BEARER", "Bearer ", "Bearer  "):
        sent = {"Authorization": f"{scheme} {GOOD}"}
        assert (await client.call("GET", "/v1/reservations", headers=sent)).status == 200


EXPIRED = with_claims(exp=int(time.time()) - 1)


async def test_every_route_is_its_owners(client: Client, untouched: Scene) -> None:
    """A user's routes refuse services, a service's refuse users, and both refuse nobody."""
    described = (await client.call("GET", "/openapi.json")).body["paths"]
    names = {"campaign": untouched.campaign, "reservation": untouched.held, "payment": untouched.payment}
    seen = set()
    for template, operations in described.items():
        path = template.format_map(names | {"sku": "phone", "order_id": "order", "order": "order"})
        for method, operation in operations.items():
            owners = {name for choice in operation["security"] for name in choice}
            if len(owners) != 1 or {} in operation["security"]:
                continue
            (owner,) = owners
            seen.add(owner)
            body = None if method in {"get", "delete"} else {}
            assert_problem(await client.call(method, path, json_body=body), "unauthenticated")
            for bad in (EXPIRED, with_claims(aud="other"), "x"):
                sent = {"Authorization": f"Bearer {bad}"}
                assert_problem(
                    await client.call(method, path, json_body=body, headers=sent), "unauthenticated"
                )
            stranger = await client.call(
                method,
                path,
                json_body=body,
                user="ann" if owner == "service" else None,
                service=owner == "user",
            )
            assert_problem(stranger, "forbidden")
    assert seen == {"user", "service"}


async def test_a_place_in_line_is_its_users_own(client: Client) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 1, "stock": 1}])
    await client.reserve(campaign, "ann")
    assert (await client.join(campaign, "bob")).status == 201
    path = f"/v1/campaigns/{campaign}/waitlist"
    for name in ("user", "user_id", "sub", "tier"):
        lie = {"sku": "phone", name: "bob"}
        assert_problem(await client.call("POST", path, user="eve", json_body=lie), "invalid_request", name)
    for who in ("ann", "eve", "bob/", "phone/bob", "Bob"):
        for method in ("GET", "DELETE"):
            answer = await client.call(method, f"{path}?user=bob", user=who)
            assert (answer.status, answer.body.get("places", [])) == (200, [])
    places = (await client.call("GET", path, user="bob")).body["places"]
    assert [one["position"] for one in places] == [1]
    assert_problem(await client.call("GET", path, service=True), "forbidden")
    await client.audit(campaign)


async def test_a_ranking_is_for_anyone_who_is_who_they_say(client: Client) -> None:
    campaign = await client.create()
    held = (await client.reserve(campaign, "alexandra")).body["id"]
    await client.paid(held, "alexandra")
    path = f"/v1/campaigns/{campaign}/rankings/buyers"

    async def seen(**who: Any) -> tuple[str, bool]:
        answer = await client.call("GET", f"{path}?user=alexandra", **who)
        assert answer.status == 200, answer
        return answer.body["entries"][0]["user"], answer.body["me"] is not None

    assert await seen() == ("a***a", False)
    assert await seen(service=True) == ("a***a", False)
    assert await seen(user="alexandr") == ("a***a", False)
    assert await seen(user="alexandra") == ("alexandra", True)
    for bad in (EXPIRED, "x", SERVICE_KEY + "x"):
        answer = await client.call("GET", path, headers={"Authorization": f"Bearer {bad}"})
        assert_problem(answer, "unauthenticated")


@pytest.mark.parametrize(
    "key",
    [
        SERVICE_KEY[:-1],
        SERVICE_KEY + "x",
        SERVICE_KEY.upper(),
        f"{SERVICE_KEY}\t{SERVICE_KEY}",
        hashlib.sha256(SERVICE_KEY.encode()).hexdigest(),
        JWT_SECRET,
    ],
)
async def test_a_service_key_is_right_or_wrong(client: Client, untouched: Scene, key: str) -> None:
    sent = {"Authorization": f"Bearer {key}"}
    path = f"/v1/campaigns/{untouched.campaign}/actions"
    answer = await client.call("POST", path, headers=sent, json_body={"action": "close"})
    assert_problem(answer, "unauthenticated")


async def test_a_user_is_not_who_they_say_they_are(client: Client, untouched: Scene) -> None:
    """Neither body, query, path nor another header names a user."""
    campaign = await client.create()
    path = f"/v1/campaigns/{campaign}/reservations"
    for name in ("user", "user_id", "sub", "tier"):
        answer = await client.call("POST", path, user="bob", json_body={"sku": "phone", name: "ann"})
        assert_problem(answer, "invalid_request", name)
    lies = {"X-User": "ann", "X-Forwarded-User": "ann", "From": "ann", "Cookie": "user=ann; sub=ann"}
    said = "?user=ann&user_id=ann&sub=ann"
    held = await client.call("POST", path + said, user="bob", json_body={"sku": "phone"}, headers=lies)
    assert held.body["user"] == "bob"
    listed = await client.call("GET", f"/v1/reservations{said}", user="bob", headers=lies)
    assert {one["user"] for one in listed.body["reservations"]} == {"bob"}
    own = f"/v1/reservations/{untouched.held}"
    for method in ("GET", "DELETE"):
        assert_problem(
            await client.call(method, own + said, user="bob", headers=lies), "reservation_not_found"
        )


async def test_a_tier_is_the_tokens(client: Client) -> None:
    campaign = await client.create(tiers=["gold"])
    path = f"/v1/campaigns/{campaign}/reservations"
    for tier, status in (("gold", 201), ("silver", 403), ("GOLD", 403), ("gold ", 403), (None, 403)):
        sent = {"Authorization": f"Bearer {token(uuid.uuid4().hex, tier=tier)}"}
        answer = await client.call("POST", path, headers=sent, json_body={"sku": "phone"})
        assert answer.status == status, (tier, answer)


# Keys of an issuer. The gateway's own parts, without a stack.


def key_of(private: Any, **members: Any) -> dict[str, Any]:
    """The public key as a JSON Web Key."""
    algorithm = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    maker: Any = next((made for kind, made in algorithm.items() if isinstance(private, kind)), OKPAlgorithm)
    return {**maker.to_jwk(private.public_key(), as_dict=True), **members}


SIGNERS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
ALL_KEYS = {"keys": [key_of(private, kid=name) for name, private in SIGNERS.items()]}


def signed(algorithm: str, private: Any, kid: str | None, **claims: Any) -> str:
    return jwt.encode(ANN | claims, private, algorithm, headers={"kid": kid} if kid is not None else None)


@dataclass
class Issuer:
    """Where keys are published; it counts who looks."""

    keys: Any
    status: int = 200
    looks: int = 0

    async def publish(self, request: web.Request) -> web.Response:
        self.looks += 1
        body = self.keys if isinstance(self.keys, bytes) else json.dumps(self.keys).encode()
        return web.Response(status=self.status, body=body)


@asynccontextmanager
async def published(keys: Any) -> AsyncIterator[tuple[Issuer, str]]:
    """An issuer, and the URL of its keys."""
    issuer = Issuer(keys)
    app = web.Application()
    app.router.add_get("/jwks.json", issuer.publish)
    async with TestServer(app) as server:
        yield issuer, str(server.make_url("/jwks.json"))


@dataclass
class Gate:
    """An authenticator, and the clock it goes by."""

    source: str
    jwt_secret: str | None = None
    clock: StoreClock = field(default_factory=StoreClock)

    def __post_init__(self) -> None:
        self.authenticator = Authenticator(
            self.clock, jwt_secret=self.jwt_secret, jwks=KeySet(self.source), service_key=SERVICE_KEY
        )

    async def user(self, given: str) -> User | None:
        """Who it is, None for nobody."""
        asked = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {given}"})
        try:
            return await self.authenticator.user(asked)
        except Problem as problem:
            if problem.code != "unauthenticated":
                raise
            return None


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[Any], str]:
    def write(keys: Any) -> str:
        (tmp_path / "jwks.json").write_text(json.dumps(keys))
        return str(tmp_path / "jwks.json")

    return write


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_a_token_of_the_issuer_is_its_user(algorithm: str, key_file: Callable[[Any], str]) -> None:
    good = signed(algorithm, SIGNERS[algorithm], algorithm, tier="gold")
    assert await Gate(key_file(ALL_KEYS)).user(good) == User("ann", "gold")
    async with published(ALL_KEYS) as (issuer, url):
        gate = Gate(url)
        found = await asyncio.gather(*(gate.user(good) for _ in range(20)))
        assert set(found) == {User("ann", "gold")}
        assert issuer.looks == 1


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_a_token_needs_no_key_id_where_there_is_one_key(
    algorithm: str, key_file: Callable[[Any], str]
) -> None:
    gate = Gate(key_file({"keys": [key_of(SIGNERS[algorithm])]}))
    assert await gate.user(signed(algorithm, SIGNERS[algorithm], None)) == User("ann", None)
    two = {"keys": [key_of(RSA, kid="one"), key_of(OTHER_RSA, kid="two")]}
    assert await Gate(key_file(two)).user(signed("RS256", RSA, None)) is None


@pytest.mark.parametrize("jwt_secret", [None, JWT_SECRET])
async def test_a_token_of_another_key_is_nobody(
    jwt_secret: str | None, key_file: Callable[[Any], str]
) -> None:
    symmetric = {"kty": "oct", "kid": "oct", "k": b64(b"a public secret")}
    decryption = key_of(OTHER_RSA, kid="enc", use="enc")
    long = key_of(OTHER_RSA, kid="long", alg="RS512")
    gate = Gate(key_file({"keys": [*ALL_KEYS["keys"], symmetric, decryption, long]}), jwt_secret)
    assert await gate.user(signed("RS256", RSA, "RS256")) == User("ann", None)
    public = RSA.public_key()
    spellings = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(key_of(RSA, kid="RS256")).encode(),
        EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ED.public_key().public_bytes_raw(),
        b"a public secret",
    ]
    confused = [
        forged({"alg": algorithm, "kid": kid}, key=key)
        for key in spellings
        for algorithm in ("HS256", "RS256", "ES256", "EdDSA")
        for kid in ("RS256", "ES256", "EdDSA", "oct")
    ]
    strangers = [
        signed("RS256", OTHER_RSA, "RS256"),
        signed("RS256", OTHER_RSA, "enc"),
        signed("RS256", OTHER_RSA, "long"),
        signed("RS512", OTHER_RSA, "long"),
        signed("RS256", RSA, "ES256"),
        signed("RS256", RSA, "unknown"),
        signed("RS256", RSA, ""),
        signed("RS384", RSA, "RS256"),
        signed("PS256", RSA, "RS256"),
        forged({"alg": "none", "kid": "RS256"}),
        forged({"alg": "RS256", "kid": "RS256"}),
        forged({"alg": "RS256", "kid": 5}),
        *([] if jwt_secret else [token("ann")]),
    ]
    for bad in [*confused, *strangers]:
        assert await gate.user(bad) is None, jwt.get_unverified_header(bad)
    assert (await gate.user(token("ann")) is not None) == (jwt_secret is not None)


async def test_keys_are_looked_up_again_for_one_that_is_new_but_not_for_everyone() -> None:
    """Anybody can make up key ids: that must not become a load on the issuer."""
    async with published(ALL_KEYS) as (issuer, url):
        gate = Gate(url)
        for number in range(50):
            assert await gate.user(signed("ES256", EC, f"made-up-{number}")) is None
        assert issuer.looks == 1


async def test_keys_may_be_changed_while_we_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "_UNKNOWN_KEY_SECONDS_MIN", 0)
    old, new = key_of(RSA, kid="old"), key_of(OTHER_RSA, kid="new")
    async with published({"keys": [old]}) as (issuer, url):
        gate = Gate(url)
        of_old, of_new = signed("RS256", RSA, "old"), signed("RS256", OTHER_RSA, "new")
        assert await gate.user(of_old) is not None
        assert await gate.user(of_new) is None
        issuer.keys = {"keys": [old, new]}
        assert await gate.user(of_new) is not None
        assert await gate.user(of_old) is not None
        # Taken back: the tokens of the old key end, though each was good and remembered.
        issuer.keys = {"keys": [new]}
        monkeypatch.setattr(jwks, "_FRESH_SECONDS", 0)
        gate.clock.hear(gate.clock.now_ms() + TRUSTED_MS + 1_000)
        assert await gate.user(of_old) is None
        assert await gate.user(of_new) is not None


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        (ALL_KEYS, 500),
        (ALL_KEYS, 404),
        (b"", 200),
        (b"not JSON", 200),
        (b"\xff", 200),
        (b"[" * 100_000, 200),
        ([], 200),
        (None, 200),
        ("keys", 200),
        ({}, 200),
        ({"keys": []}, 200),
        ({"keys": None}, 200),
        ({"keys": "RS256"}, 200),
        ({"keys": {"kty": "RSA"}}, 200),
        ({"keys": [None, 5, "x", [], {}]}, 200),
        (
            {"keys": [{"kty": "RSA"}, {"kty": "RSA", "n": 5, "e": 5}, {"kty": "RSA", "n": "é", "e": "AQAB"}]},
            200,
        ),
        ({"keys": [{"kty": ["RSA"]}, {"kty": "EC", "crv": []}, {"kty": "RSA", "alg": []}]}, 200),
    ],
    ids=lambda value: f"{value!r:.40}",
)
async def test_an_issuer_that_fails_takes_nobodys_key_away(
    monkeypatch: pytest.MonkeyPatch, keys: Any, status: int
) -> None:
    async with published(ALL_KEYS) as (issuer, url):
        gate = Gate(url)
        assert await gate.user(signed("RS256", RSA, "RS256")) is not None
        monkeypatch.setattr(jwks, "_FRESH_SECONDS", 0)
        issuer.keys, issuer.status = keys, status
        assert await gate.user(signed("ES256", EC, "ES256")) is not None
        assert await gate.user(signed("ES256", EC, "unknown")) is None
        assert issuer.looks >= 2


async def test_keys_that_are_of_no_use_do_not_hide_those_that_are(key_file: Callable[[Any], str]) -> None:
    odd = [{"kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "n": "AQAB", "e": "AQAB"}, {"kty": "odd"}, {}]
    gate = Gate(key_file({"keys": [*odd, *ALL_KEYS["keys"]]}))
    assert await gate.user(signed("EdDSA", ED, "EdDSA")) == User("ann", None)


async def test_keys_that_were_never_found_let_nobody_in(tmp_path: Path) -> None:
    for source in (str(tmp_path / "missing.json"), "http://127.0.0.1:1/jwks.json", str(tmp_path)):
        assert await Gate(source).user(signed("RS256", RSA, "RS256")) is None
        assert await Gate(source, JWT_SECRET).user(token("ann")) == User("ann", None)


@pytest.mark.parametrize(("algorithm", "maker"), {"RS256": RSAAlgorithm, "ES256": ECAlgorithm}.items())
async def test_a_private_key_that_was_published_lets_nobody_in(
    algorithm: str, maker: Any, key_file: Callable[[Any], str]
) -> None:
    private = {**maker.to_jwk(SIGNERS[algorithm], as_dict=True), "kid": "private"}
    gate = Gate(key_file({"keys": [private, key_of(OTHER_RSA, kid="public")]}))
    assert await gate.user(signed(algorithm, SIGNERS[algorithm], "private")) is None
    assert await gate.user(signed("RS256", OTHER_RSA, "public")) == User("ann", None)


async def test_a_token_is_good_until_it_expires_and_no_longer() -> None:
    """By the store's clock, however often it was good before."""
    gate = Gate("/nowhere", JWT_SECRET)
    now_ms = gate.clock.now_ms()
    short = token("ann", exp=now_ms // 1000 + 60, nbf=now_ms // 1000 + 10)
    for seconds, good in ((0, False), (12, True), (58, True), (61, False), (30, True)):
        gate.clock.hear(now_ms + seconds * 1000)
        assert (await gate.user(short) is not None) == good, seconds
