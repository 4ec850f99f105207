"""Whatever is wrong with a request: the documented problem is answered, and nothing is changed."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway import endpoint as endpoints
from reservation.catalog import parse_campaign
from reservation.validation import Invalid
from tests.e2e.test_metrics import scrape
from tests.e2e.wire import TAKES_BODY, Scene, assert_problem, credentials, request, send
from tests.stack import Answer, Client, Stack, sale

pytestmark = pytest.mark.usefixtures("clean_log")

JSON = ("Content-Type", "application/json")
MEGABYTE = 1_000_000
EVERY_ROUTE = pytest.mark.parametrize("route", TAKES_BODY)
NO_IDS = [
    "nope",
    "%00",
    "%0d%0aX:1",
    "%ff",
    "%ed%a0%80",
    "a%2Fb",
    "..",
    "%F0%9F%98%80",
    "%E2%80%A8",
    "%",
    "A" * 5_000,
]
"""Path segments that name nothing."""
CONTROL = ["\0", "a\nb", "\x7f", "\x85", "\u2028", "\u2029"]
NO_INTEGERS = ["1", 1.0, 1.5, True, None, [], {}, [1], {"n": 1}, 10**30]


async def call_route(
    client: Client, scene: Scene, route: str, body: bytes, headers: dict[str, str] | None = None
) -> Answer:
    method, path, who = TAKES_BODY[route]
    sent = credentials(who, body) | (headers or {})
    return await client.call(method, scene.path(path), data=body, headers=sent)


# Bodies


@EVERY_ROUTE
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"sku":}',
        b"{'sku': 'phone'}",
        b'{"sku": "phone"} x',
        b'{"sku": "phone",}',
        b'\xef\xbb\xbf{"sku": "phone"}',
        b'{"sku": "\xff"}',
        b'{"sku": "\xed\xa0\x80"}',
        rb'{"sku": "\ud800"}',
        rb'{"\udfff": 1}',
        b'{"sku": "\x00"}',
        b'{"sku": "phone"}'.decode().encode("utf-16"),
        b'{"quantity": NaN}',
        b'{"quantity": 1e400}',
        b'{"quantity": -Infinity}',
        b'{"quantity": 0x10}',
        b"[" * 150 + b"]" * 150,
        b'{"sku":' * 300 + b"1" + b"}" * 300,
        b'{"id": "x", "kind": "flash_sale", "x": ' + b"[" * 300 + b"]" * 300 + b"}",
        b"[" * 30_000,
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_a_body_that_is_not_json_is_malformed(
    client: Client, untouched: Scene, route: str, body: bytes
) -> None:
    assert_problem(await call_route(client, untouched, route, body), "malformed_json")


@EVERY_ROUTE
@pytest.mark.parametrize("body", [[], [{}], "x", 1, 1.5, True, None], ids=repr)
async def test_a_body_that_is_no_object_is_invalid(
    client: Client, untouched: Scene, route: str, body: object
) -> None:
    answer = await call_route(client, untouched, route, json.dumps(body).encode())
    assert_problem(answer, "malformed_json" if route == "webhook" else "invalid_request")


PHONE_LINE = {"sku": "phone"}
ORDER_LINE = {"sku": "tv", "category": "any", "amount": 3000}
ORDER = {"order_id": "never", "user": "ann", "lines": [ORDER_LINE], "paid_at": "2026-11-01T00:00:00Z"}
PAID = {"reservation": f"sale.{'a' * 24}", "amount": 1, "currency": "CNY", "provider_ref": "r"}


def wrong(route: str, good: dict[str, Any], field: str, values: Iterable[object]) -> list[Any]:
    """The good body with a field that is missing, or not what it may be."""
    bodies = [{name: value for name, value in good.items() if name != field}]
    bodies += [good | {field: value} for value in values]
    return [
        pytest.param(route, body, field, id=f"{route}-{field}={body.get(field, 'missing')!r:.30}")
        for body in bodies
    ]


@pytest.mark.parametrize(
    ("route", "body", "path"),
    [
        *wrong("reserve", {"sku": "phone"}, "sku", [None, 1, [], "", "x" * 201, *CONTROL]),
        *wrong("reserve", {"sku": "phone"}, "quantity", [0, -1, 2**63, 2**64, 10**6 + 1, *NO_INTEGERS])[1:],
        *wrong("reserve", {"sku": "phone"}, "user", ["bob"])[1:],
        *wrong("reserve", {"sku": "phone"}, "\0", ["bob"])[1:],
        *wrong("act", {"action": "pause"}, "action", ["", "PAUSE", "open", None, 1, ["pause"], "pause\0"]),
        *wrong("act", {"action": "pause"}, "reason", ["none"])[1:],
        *wrong("restock", {"delta": 1}, "delta", [2**63, -(2**63), 10**9 + 1, 10**9, *NO_INTEGERS]),
        *wrong("restock", {"delta": 1}, "sku", ["phone"])[1:],
        *wrong("pay", {"stage": "full"}, "stage", ["", "half", "FULL", None, 1, ["full"], "full\n"]),
        *wrong("pay", {"stage": "full"}, "amount", [1])[1:],
        *wrong("quote", {"sku": "phone"}, "sku", [1, [], "", "x" * 201, *CONTROL])[1:],
        *wrong("quote", {"sku": "phone"}, "quantity", [0, -1, 2**63, 10**6 + 1, *NO_INTEGERS])[1:],
        *wrong("quote", {"items": [{"sku": "phone"}]}, "items", [[], {}, "phone", [PHONE_LINE] * 101])[1:],
        *wrong("quote", {"sku": "phone"}, "order_id", ["", "a/b", "é", "x" * 65, 7])[1:],
        *wrong("quote", {"sku": "phone"}, "user", ["bob"])[1:],
        ("quote", {}, ""),
        ("quote", {"sku": "phone", "items": [PHONE_LINE]}, ""),
        ("quote", {"items": [PHONE_LINE, {"sku": "phone", "quantity": 0}]}, "items[1].quantity"),
        ("quote", {"items": [None]}, "items[0]"),
        *wrong("join", {"sku": "phone"}, "sku", [None, 1, [], "", "x" * 201, *CONTROL]),
        *wrong("join", {"sku": "phone"}, "quantity", [0, -1, 2**64, 10**6 + 1, *NO_INTEGERS])[1:],
        *wrong("join", {"sku": "phone"}, "order_id", ["", "a/b", "x" * 65, 7, "order-1"])[1:],
        *wrong("join", {"sku": "phone"}, "position", [1])[1:],
        *wrong("amend", {"quantity": 1}, "quantity", [0, -1, 2**63, 2**64, 10**6 + 1, *NO_INTEGERS]),
        *wrong("amend", {"quantity": 1}, "sku", ["phone"])[1:],
        *wrong("amend", {"quantity": 1}, "state", ["confirmed"])[1:],
        *wrong("report", ORDER, "order_id", [None, 1, "", ".", "..", "a b", "a/b", "é", "x" * 65, *CONTROL]),
        *wrong("report", ORDER, "user", [None, 1, [], "", "x" * 129, *CONTROL]),
        *wrong("report", ORDER, "lines", [None, {}, "tv", [ORDER_LINE] * 501]),
        *wrong("report", ORDER, "paid_at", [None, "", "today", 1_700_000_000, "2026-11-01", "1700000000"]),
        *wrong("report", ORDER, "tier", ["gold"])[1:],
        *(
            ("report", ORDER | {"lines": [ORDER_LINE, ORDER_LINE | {name: value}]}, f"lines[1].{name}")
            for name, values in {
                "sku": [None, 1, "", "x" * 201, *CONTROL],
                "category": [1, "", "x" * 201, *CONTROL],
                "amount": [-1, 10**12 + 1, 2**63, *NO_INTEGERS],
                "quantity": [1],
            }.items()
            for value in values
        ),
        *wrong("pay with order", PAID, "reservation", [None, 1, "", "x", "\0", "../x", "sale.x"]),
        *wrong("pay with order", PAID, "amount", [0, -1, 2**63, 10**18 + 1, *NO_INTEGERS]),
        *wrong("pay with order", PAID, "provider_ref", [None, 1, "", "x" * 201, *CONTROL]),
        *wrong("pay with order", PAID, "currency", [None, 156, []]),
        *wrong("pay with order", PAID, "user", ["ann"])[1:],
        *wrong("sandbox", {"outcome": "failed"}, "outcome", ["", "maybe", None, 0, {}]),
        *wrong("sandbox", {"outcome": "failed"}, "amount", [1])[1:],
    ],
)
async def test_a_field_that_is_wrong_is_named(
    client: Client, untouched: Scene, route: str, body: object, path: str
) -> None:
    answer = await call_route(client, untouched, route, json.dumps(body).encode())
    assert_problem(answer, "invalid_request", path)


# Campaign documents

PHONE = {"sku": "phone", "price": 1, "stock": 1}


def offer(**changes: Any) -> dict[str, Any]:
    return {"offers": [PHONE | changes]}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        *(({name: None}, name) for name in ("id", "kind", "currency", "opens_at", "closes_at", "offers")),
        *(({"id": value}, "id") for value in ("", "Sale", "a_b", "a" * 65, "a\n", "é", "\0", 1, [])),
        *(({"kind": value}, "kind") for value in ("auction", "FLASH_SALE", "", 1, [], {})),
        *(({"currency": value}, "currency") for value in ("cny", "CNYY", "CN", "", "ÇNY", 156, "CN\0")),
        *(({"title": value}, "title") for value in ("", "x" * 201, 1, *CONTROL)),
        *(({"tiers": value}, "tiers") for value in ([], "gold", {}, ["x"] * 101)),
        *(({"tiers": [value]}, "tiers[0]") for value in ("", None, 1, [], *CONTROL)),
        *(({"hold_seconds": value}, "hold_seconds") for value in (0, -1, 604_801, 2**63, *NO_INTEGERS)),
        *(({"per_user": value}, "per_user") for value in (0, -1, 10**9 + 1, 2**64, "1", 1.0, True)),
        *(({"opens_at": value}, "opens_at") for value in (
            "", "soon", "2026-11-01", "2026-11-01T00:00:00", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2026-11-01T00:00:00Z\0", 1_700_000_000, [],
        )),
        ({"closes_at": "2020-01-01T00:00:00Z"}, ""),
        ({"opens_at": "2026-11-01T00:00:00Z", "closes_at": "2026-11-01T00:00:00Z"}, ""),
        ({"warm_up_at": "2999-01-01T00:00:00Z"}, ""),
        ({"warm_up_at": 5}, "warm_up_at"),
        ({"colour": "red"}, "colour"),
        ({"phase": "open"}, "phase"),
        ({"balance_opens_at": "2999-01-01T00:00:00Z"}, "balance_opens_at"),
        *(({"offers": value}, "offers") for value in ([], {}, "phone", [PHONE] * 1_001)),
        *(({"offers": [value]}, "offers[0]") for value in (None, 1, "phone", [])),
        ({"offers": [PHONE, PHONE]}, ""),
        (offer(colour="red"), "offers[0].colour"),
        (offer(deposit=1), "offers[0].deposit"),
        *((offer(sku=value), "offers[0].sku") for value in ("", "a b", "é", "x" * 65, "a/b", "x\n", "\0", 1)),
        *((offer(title=value), "offers[0].title") for value in ("", "x" * 201, "\0", 1)),
        *((offer(price=value), "offers[0].price") for value in (0, -1, 10**12 + 1, 2**63, *NO_INTEGERS)),
        *((offer(stock=value), "offers[0].stock") for value in (-1, 10**9 + 1, 2**63, *NO_INTEGERS)),
        *((offer(list_price=value), "offers[0].list_price") for value in (0, -1, 2**63, "1", 1.0)),
        *((offer(per_user=value), "offers[0].per_user") for value in (0, -1, 2**63, "1", 1.0)),
    ],
    ids=lambda value: f"{value!s:.50}",
)  # fmt: skip
async def test_a_campaign_that_is_wrong_is_neither_made_nor_changed(
    client: Client, untouched: Scene, change: dict[str, Any], path: str
) -> None:
    for campaign in (untouched.campaign, f"never-{uuid.uuid4().hex[:12]}"):
        document = sale(id=campaign) | change
        answer = await client.call("PUT", f"/v1/campaigns/{campaign}", service=True, json_body=document)
        assert_problem(answer, "invalid_request", path)
    assert_problem(await client.call("GET", f"/v1/campaigns/{campaign}"), "campaign_not_found")


async def test_a_campaign_goes_by_the_name_in_its_path(client: Client, untouched: Scene) -> None:
    path = f"/v1/campaigns/{untouched.campaign}"
    answer = await client.call("PUT", path, service=True, json_body=sale(id="another"))
    assert_problem(answer, "invalid_request", "id")
    assert_problem(await client.call("GET", "/v1/campaigns/another"), "campaign_not_found")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            {"opens_at": "2026-11-01T00:00:00.0001Z", "closes_at": "2026-11-01T00:00:00.0002Z"},
            id="windows-within-a-millisecond",
        ),
        pytest.param({"closes_at": "9999-12-31T23:59:59.9999Z"}, id="the-last-instant"),
        pytest.param({"opens_at": "0001-01-01T00:00:00Z"}, id="the-first-instant"),
        pytest.param({"opens_at": "2026-11-01T00:00:00.123456Z"}, id="microseconds"),
    ],
)
def test_a_campaign_that_is_taken_can_be_read_again_as_it_was(change: dict[str, Any]) -> None:
    """One that cannot would break every process that comes upon it."""
    try:
        document = parse_campaign(sale() | change)
    except Invalid:
        return
    assert parse_campaign(document.to_json()) == document


@pytest.mark.parametrize("at", ["1700000000", "1700000000.5", "-1"])
def test_a_number_is_no_time_even_in_quotes(at: str) -> None:
    with pytest.raises(Invalid):
        parse_campaign(sale(opens_at=at))


# Sizes


@EVERY_ROUTE
@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
async def test_a_body_of_one_megabyte_is_refused(
    client: Client, untouched: Scene, route: str, chunked: bool
) -> None:
    method, path, who = TAKES_BODY[route]
    body = b'{"sku": "' + b"x" * MEGABYTE + b'"}'

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 16_384):
            yield body[start : start + 16_384]

    sent = credentials(who) | {"Content-Type": "application/json"}
    url = client.url + untouched.path(path)
    async with client.session.request(method, url, data=parts() if chunked else body, headers=sent) as got:
        assert_problem(Answer(got.status, await got.json(content_type=None), got.headers), "body_too_large")


async def test_a_body_is_refused_by_what_it_says_of_itself(up: Stack, untouched: Scene) -> None:
    """Before a byte of it has come."""
    for length in (MEGABYTE, 2**62):
        headers = [*credentials("ann").items(), JSON, ("Content-Length", str(length))]
        path = f"/v1/campaigns/{untouched.campaign}/reservations"
        answer = await send(up.url, request("POST", path, None, headers))
        assert answer is not None
        assert_problem(answer, "body_too_large")


# Media types


@pytest.mark.parametrize("route", [one for one, (_, _, who) in TAKES_BODY.items() if who != "provider"])
@pytest.mark.parametrize(
    "header",
    [
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json, text/plain"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json; charset=é"},
        {"Content-Type": "application/jsonx"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "deflate"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "zstd"},
        {"Content-Encoding": "made-up"},
    ],
    ids=lambda header: str(*header.items()),
)
async def test_a_body_of_another_kind_is_refused(
    up: Stack, untouched: Scene, route: str, header: dict[str, str]
) -> None:
    method, path, who = TAKES_BODY[route]
    body = b'{"sku": "phone"}'
    headers = [*credentials(who).items(), *({JSON[0]: JSON[1]} | header).items()]
    answer = await send(up.url, request(method, untouched.path(path), body, headers))
    assert answer is not None
    assert_problem(answer, "unsupported_media_type")


async def test_a_body_of_no_kind_is_refused(up: Stack, untouched: Scene) -> None:
    path = f"/v1/campaigns/{untouched.campaign}/reservations"
    sent = request("POST", path, b'{"sku": "phone"}', [*credentials("ann").items()])
    answer = await send(up.url, sent)
    assert answer is not None
    assert_problem(answer, "unsupported_media_type")


async def test_a_compressed_body_is_never_unpacked(up: Stack, untouched: Scene) -> None:
    """60 MB of spaces in 58 KB."""
    path = f"/v1/campaigns/{untouched.campaign}/reservations"
    bomb = gzip.compress(b" " * 60_000_000)
    headers = [*credentials("ann").items(), JSON, ("Content-Encoding", "gzip")]
    answer = await send(up.url, request("POST", path, bomb, headers))
    assert answer is not None
    assert_problem(answer, "unsupported_media_type")
    answer = await send(up.url, request("POST", "/v1/payments/webhook", bomb, headers))
    assert answer is not None
    assert_problem(answer, "unauthenticated")


# Methods, paths, identifiers


async def test_another_method_is_not_allowed_and_told_which_are(client: Client, untouched: Scene) -> None:
    described = (await client.call("GET", "/openapi.json")).body["paths"]
    assert len(described) > 10
    for template, operations in described.items():
        allowed = {method.upper() for method in operations}
        if "GET" in allowed:
            allowed.add("HEAD")
        names = {"campaign": untouched.campaign, "reservation": untouched.held, "payment": untouched.payment}
        path = template.format_map(names | dict.fromkeys(("sku", "order_id", "order"), "phone"))
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - allowed:
            answer = await client.call(method, path, user="ann")
            assert_problem(answer, "method_not_allowed")
            assert set(answer.headers["Allow"].split(", ")) == allowed, template


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v2/campaigns", "/v1/campaigns/", "/v1/nothing", "//v1/campaigns", "/V1/campaigns",
     "/v1/campaigns/x/y", "/v1/campaigns;x", "/v1%2Fcampaigns", "/v1/campaigns%00", "/%00", "/%ff",
     "/v1/campaigns/x/offers//stock", "/.git/config", "/" + "x" * 7_000],
    ids=lambda path: path[:30],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_path_that_leads_nowhere_is_not_found(up: Stack, method: str, path: str) -> None:
    answer = await send(up.url, request(method, path, b"{}", [JSON]))
    assert answer is not None
    assert_problem(answer, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "who", "body", "code"),
    [
        ("GET", "/v1/campaigns/{}", "anyone", None, "campaign_not_found"),
        ("GET", "/v1/campaigns/{}/audit", "service", None, "campaign_not_found"),
        ("POST", "/v1/campaigns/{}/reservations", "ann", {"sku": "phone"}, "campaign_not_found"),
        ("POST", "/v1/campaigns/{}/actions", "service", {"action": "pause"}, "campaign_not_found"),
        ("POST", "/v1/campaigns/{}/offers/phone/stock", "service", {"delta": 1}, "campaign_not_found"),
        ("POST", "/v1/campaigns/[campaign]/offers/{}/stock", "service", {"delta": 1}, "offer_not_found"),
        ("GET", "/v1/reservations/{}", "ann", None, "reservation_not_found"),
        ("POST", "/v1/campaigns/{}/quote", "ann", {"sku": "phone"}, "campaign_not_found"),
        ("POST", "/v1/campaigns/{}/waitlist", "ann", {"sku": "phone"}, "campaign_not_found"),
        ("GET", "/v1/campaigns/{}/waitlist", "ann", None, "campaign_not_found"),
        ("DELETE", "/v1/campaigns/{}/waitlist", "ann", None, "campaign_not_found"),
        ("GET", "/v1/campaigns/{}/rankings/buyers", "anyone", None, "campaign_not_found"),
        ("GET", "/v1/campaigns/{}/events", "anyone", None, "campaign_not_found"),
        ("GET", "/v1/reservations/{}/events", "ann", None, "reservation_not_found"),
        ("PATCH", "/v1/reservations/{}", "ann", {"quantity": 2}, "reservation_not_found"),
        ("DELETE", "/v1/reservations/{}", "ann", None, "reservation_not_found"),
        ("GET", "/v1/orders/{}", "service", None, "order_not_found"),
        ("POST", "/v1/reservations/{}/payments", "ann", {"stage": "full"}, "reservation_not_found"),
        ("POST", "/sandbox/payments/{}", "anyone", {"outcome": "succeeded"}, "payment_not_found"),
        ("PUT", "/v1/campaigns/{}", "service", None, "invalid_request"),
    ],
)
async def test_a_name_that_nothing_has_is_not_found(
    up: Stack, untouched: Scene, method: str, path: str, who: str, body: object, code: str
) -> None:
    body = sale() if method == "PUT" else body
    sent = None if body is None else json.dumps(body).encode()
    for name in NO_IDS:
        if method == "PUT" and name == "nope":
            continue
        full = path.replace("[campaign]", untouched.campaign).format(name)
        answer = await send(up.url, request(method, full, sent, [*credentials(who).items(), JSON]))
        assert answer is not None
        assert_problem(answer, code)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/orders/{}/cancel", None, "order_not_found"),
        ("/v1/orders/{}/payments", PAID, "order_not_found"),
    ],
)
async def test_what_can_be_no_orders_id_is_not_found(
    up: Stack, untouched: Scene, path: str, body: object, code: str
) -> None:
    """An order's id that was never heard of may be cancelled: its report may come later."""
    sent = None if body is None else json.dumps(body).encode()
    for name in (
        *(one for one in NO_IDS if one not in ("nope", "..")),
        "x" * 65,
        "a%20b",
        "%20",
        "ord%C3%A9r",
    ):
        full = path.format(name)
        answer = await send(up.url, request("POST", full, sent, [*credentials("service").items(), JSON]))
        assert answer is not None
        assert_problem(answer, code)


@pytest.mark.parametrize("end", ["", "a", ".full", "\n"], ids=repr)
async def test_an_identifier_has_one_spelling(client: Client, untouched: Scene, end: str) -> None:
    """What is nearly the id of a reservation or a payment is not it."""
    shorter = untouched.held[:-1]
    for held in (
        shorter + end if shorter + end != untouched.held else f"{shorter}b",
        untouched.held.upper(),
        f"{untouched.held}%20",
        f" {untouched.held}",
    ):
        answer = await client.call("GET", f"/v1/reservations/{held}", user="ann")
        assert_problem(answer, "reservation_not_found")
    for stage in ("deposit", "balance", "FULL", "half", "full%00", "full.refund"):
        answer = await client.settle_payment(f"{untouched.held}.{stage}")
        assert_problem(answer, "payment_not_found")


async def test_anothers_reservation_is_not_found(client: Client, untouched: Scene) -> None:
    path = f"/v1/reservations/{untouched.held}"
    assert_problem(await client.call("GET", path, user="bob"), "reservation_not_found")
    assert_problem(await client.call("DELETE", path, user="bob"), "reservation_not_found")
    assert_problem(await client.pay(untouched.held, "bob"), "reservation_not_found")
    assert_problem(await client.amend(untouched.held, "bob", 2), "reservation_not_found")
    assert_problem(await client.call("GET", f"{path}/events", user="bob"), "reservation_not_found")
    listed = await client.call("GET", f"/v1/reservations?campaign={untouched.campaign}", user="bob")
    assert listed.body == {"reservations": [], "next": None}
    absent = await client.call("GET", f"{path[:-1]}{'a' if path[-1] != 'a' else 'b'}", user="bob")
    present = await client.call("GET", path, user="bob")
    assert (absent.status, absent.body) == (present.status, present.body), "nobody can tell them apart"


# Queries and headers


@pytest.mark.parametrize(
    ("query", "path"),
    [
        *((f"limit={value}", "limit") for value in (
            "", "0", "-1", "101", "x", "1.0", "1e1", "+1", "%201", "9" * 20, "%D9%A1", "%00", "1%00",
        )),
        *((f"after={value}", "after") for value in ("", "x", "%00", "%ff", "a.b", "x" * 5_000)),
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
async def test_a_query_that_is_wrong_is_named(up: Stack, untouched: Scene, query: str, path: str) -> None:
    sent = request("GET", f"/v1/reservations?{query}", None, [*credentials("ann").items()])
    answer = await send(up.url, sent)
    assert answer is not None
    assert_problem(answer, "invalid_request", path)


@pytest.mark.parametrize("who", ["anyone", "ann", "service"])
@pytest.mark.parametrize("value", ["", "0", "-1", "101", "x", "1.0", "9" * 20, "%D9%A1", "%00", "1%00"])
async def test_a_ranking_has_a_length_that_is_a_number(
    up: Stack, untouched: Scene, value: str, who: str
) -> None:
    path = f"/v1/campaigns/{untouched.campaign}/rankings/buyers?limit={value}"
    answer = await send(up.url, request("GET", path, None, [*credentials(who).items()]))
    assert answer is not None
    assert_problem(answer, "invalid_request", "limit")


@pytest.mark.parametrize(
    "sku", ["nope", "", "%00", "%ff", "%ed%a0%80", "%F0%9F%98%80", "%0d%0a", "a%2Fb", "..", "x" * 5_000]
)
async def test_to_leave_no_line_is_harmless(up: Stack, untouched: Scene, sku: str) -> None:
    path = f"/v1/campaigns/{untouched.campaign}/waitlist?sku={sku}"
    answer = await send(up.url, request("DELETE", path, None, [*credentials("ann").items()]))
    assert answer is not None
    assert (answer.status, answer.body["state"]) == (200, "left")


async def test_pages_of_another_user_cannot_be_walked_into(client: Client, untouched: Scene) -> None:
    answer = await client.call("GET", f"/v1/reservations?after={untouched.held}", user="bob")
    assert_problem(answer, "invalid_request", "after")


@pytest.mark.parametrize(
    "name", ["nope", "", "%00", "%ff", "%ed%a0%80", "%F0%9F%98%80", "%0d%0a", "x" * 5_000]
)
async def test_reservations_of_no_campaign_are_none(up: Stack, untouched: Scene, name: str) -> None:
    sent = request("GET", f"/v1/reservations?campaign={name}", None, [*credentials("ann").items()])
    answer = await send(up.url, sent)
    assert answer is not None
    assert (answer.status, answer.body) == (200, {"reservations": [], "next": None})


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ([b""], "invalid_request"),
        ([b"k" * 256], "invalid_request"),
        ([b"one", b"two"], "invalid_request"),
        (["clé"], "invalid_request"),
        ([b"\xff"], "invalid_request"),
        ([b"\xed\xa0\x80"], "invalid_request"),
        (["\u2028"], "invalid_request"),
        ([b"a\x00b"], "malformed_request"),
        ([b"a\x01b"], "malformed_request"),
        ([b"a\x7fb"], "malformed_request"),
        ([b"a\r\n b"], "malformed_request"),
    ],
    ids=repr,
)
async def test_an_idempotency_key_that_is_wrong_reserves_nothing(
    up: Stack, untouched: Scene, keys: list[bytes | str], code: str
) -> None:
    headers = [*credentials("ann").items(), JSON, *(("Idempotency-Key", key) for key in keys)]
    path = f"/v1/campaigns/{untouched.campaign}/reservations"
    answer = await send(up.url, request("POST", path, b'{"sku": "phone"}', headers))
    assert answer is not None
    assert_problem(answer, code, "Idempotency-Key" if code == "invalid_request" else None)


@pytest.mark.parametrize(
    "sku", ["телефон", "手机", "📱", "e\u0301", "\u202ephone", "phone ", "PHONE", "\ufeffphone"]
)
async def test_a_sku_in_any_script_is_just_not_on_offer(client: Client, untouched: Scene, sku: str) -> None:
    assert_problem(await client.reserve(untouched.campaign, "ann", sku=sku), "offer_not_found")


# Requests that end before they end


@pytest.mark.parametrize("then", ["close", "half-close"])
@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"POST /v1/cam",
        b"POST {path} HTTP/1.1\r\n",
        b"POST {path} HTTP/1.1\r\nHost: shop\r\n{who}",
        b"POST {path} HTTP/1.1\r\nHost: shop\r\n{who}Content-Length: 16\r\n\r\n",
        b'POST {path} HTTP/1.1\r\nHost: shop\r\n{who}Content-Length: 17\r\n\r\n{"sku": "phone"}',
        b"POST {path} HTTP/1.1\r\nHost: shop\r\n{who}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
    ids=lambda part: repr(part[-30:]),
)
async def test_a_request_that_breaks_off_does_nothing(
    up: Stack, untouched: Scene, part: bytes, then: str
) -> None:
    who = "".join(f"{name}: {value}\r\n" for name, value in [*credentials("ann").items(), JSON])
    path = f"/v1/campaigns/{untouched.campaign}/reservations"
    part = part.replace(b"{path}", path.encode()).replace(b"{who}", who.encode())
    answer = await send(up.url, part, then=then)
    assert answer is None or answer.status < 500


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        (("Content-Length", "50"), [b'{"sku"']),
        (("Transfer-Encoding", "chunked"), [b"2\r\n{}\r\n"]),
        (("Transfer-Encoding", "chunked"), [b"2\r\n{}\r\n", b"zz\r\n"]),
    ],
    ids=["content-length", "chunked", "chunked-and-wrong"],
)
async def test_a_body_that_does_not_come_is_given_up(
    monkeypatch: pytest.MonkeyPatch, header: tuple[str, str], parts: list[bytes]
) -> None:
    came = asyncio.Event()
    monkeypatch.setattr(endpoints, "BODY_SECONDS_MAX", 0.2)

    async def take(request: web.Request) -> web.StreamResponse:
        came.set()
        return endpoints.json_response(await endpoints.read_json(request))

    app = web.Application()
    app.router.add_post("/", endpoints.endpoint(endpoints.Admission(), "/", "POST", take))
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        answer = await send(url, request("POST", "/", b"", [JSON, header]), *parts, after=came)
        assert answer is not None
        assert_problem(answer, "request_timeout")
        async with ClientSession() as session, session.post(url, json={}) as good:
            assert good.status == 200


async def test_stalled_requests_hold_up_nobody(client: Client, up: Stack, untouched: Scene) -> None:
    headers = [*credentials("ann").items(), JSON, ("Content-Length", "50")]
    stalled = request("POST", f"/v1/campaigns/{untouched.campaign}/reservations", b'{"sku"', headers)

    async def stall() -> None:
        with contextlib.suppress(TimeoutError):
            await send(up.url, stalled, seconds_max=0.5)

    stalling = [asyncio.create_task(stall()) for _ in range(200)]
    await asyncio.sleep(0)
    for _ in range(20):
        async with asyncio.timeout(2):
            assert (await client.call("GET", "/healthz")).status == 200
    await asyncio.gather(*stalling)


# What is not even HTTP

CHUNKED = b"POST /healthz HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        bytes(range(256)),
        bytes.fromhex("16030100a5010000a10303") + bytes(50),  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/3.0\r\nHost: shop\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"FOO /healthz HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"get /healthz HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET http://[::1/healthz HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET http://x:99999/healthz HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET /v1/campaigns/\xff HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET /v1/reservations?after=\xff HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET /health\0z HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\n" + b"X: 1\r\n" * 1_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nX" + b"x" * 20_000 + b": 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : shop\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nX: a\0b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nHost: other\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /healthz HTTP/1.1\r\nHost: shop\r\nContent-Length: -1\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: shop\r\nContent-Length: +5\r\n\r\nabcde",
        b"POST /healthz HTTP/1.1\r\nHost: shop\r\nContent-Length: 5x\r\n\r\nabcde",
        b"POST /healthz HTTP/1.1\r\nHost: shop\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
        CHUNKED.replace(b"Transfer", b"Content-Length: 5\r\nTransfer") + b"0\r\n\r\n",
        CHUNKED.replace(b"chunked", b"xchunked") + b"0\r\n\r\n",
        CHUNKED.replace(b"chunked", b"chunked, chunked") + b"0\r\n\r\n",
        CHUNKED + b"zz\r\nabc\r\n",
        CHUNKED + b"-1\r\nabc\r\n",
        CHUNKED + b"f" * 20 + b"\r\nabc\r\n",
        CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[-40:]),
)  # fmt: skip
async def test_what_is_not_http_is_malformed_and_closes_the_connection(up: Stack, sent: bytes) -> None:
    answer = await send(up.url, sent)
    assert answer is not None
    assert_problem(answer, "malformed_request")
    assert answer.headers.get("Connection", "close") == "close"


@EVERY_ROUTE
async def test_a_chunk_that_is_wrong_changes_nothing(up: Stack, untouched: Scene, route: str) -> None:
    method, path, who = TAKES_BODY[route]
    headers = [*credentials(who).items(), JSON, ("Transfer-Encoding", "chunked")]
    head = request(method, untouched.path(path), b"", headers)
    answer = await send(up.url, head + b'10\r\n{"sku": "phone"}\r\nzz\r\n')
    assert answer is not None
    assert_problem(answer, "malformed_request")


async def test_a_request_smuggled_behind_another_is_not_answered(up: Stack, untouched: Scene) -> None:
    inner = request("DELETE", f"/v1/reservations/{untouched.held}", None, [*credentials("ann").items()])
    headers = [JSON, ("Content-Length", str(len(inner) + 5)), ("Transfer-Encoding", "chunked")]
    answer = await send(up.url, request("POST", "/sandbox/refunds", b"0\r\n\r\n" + inner, headers))
    assert answer is not None
    assert_problem(answer, "malformed_request")


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT shop:443 HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nExpect: miracles\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nIf-None-Match: \xff\r\nAccept: \xff\r\nCookie: \xff\r\n\r\n",
        b"GET /v1/campaigns HTTP/1.1\r\nHost: shop\r\nIf-None-Match: \xff\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nabcde",
        b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n" * 50,
    ],
    ids=repr,
)  # fmt: skip
async def test_what_is_odd_but_http_is_answered(up: Stack, sent: bytes) -> None:
    answer = await send(up.url, sent)
    assert answer is not None
    assert answer.status < 500


async def test_the_gateway_is_as_well_as_before(client: Client, untouched: Scene) -> None:
    """Last: after all of this, on every process."""
    answers = [await client.call("GET", "/readyz") for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    told = await scrape(client)
    drift = {one.labels["campaign"]: one.value for one in told.of("doorbuster_conservation_drift")}
    assert drift[untouched.campaign] == 0
    assert told.sum("doorbuster_request_duration_seconds_count", status="500") == 0
