"""What a payment provider says is believed when it signed it, once, in whatever order it comes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from standardwebhooks import Webhook

from gateway.problems import Problem
from gateway.webhook import WebhookVerifier
from reservation.clock import StoreClock
from tests.e2e.wire import Scene, assert_problem, request, send
from tests.stack import PSP_KEY, SECRETS, Answer, Client, Stack, eventually, sign

pytestmark = pytest.mark.usefixtures("clean_log")

PATH = "/v1/payments/webhook"
PRICE = 5_000


def notice(payment_id: str, kind: str = "payment.succeeded", **changes: Any) -> dict[str, Any]:
    """What a provider says of a payment."""
    data = {"payment_id": payment_id, "amount": PRICE, "currency": "CNY", "provider_ref": "ref-1"} | changes
    return {"type": kind, "timestamp": datetime.now(UTC).isoformat(), "data": data}


def signature(body: bytes, key: bytes = PSP_KEY, stamp: str | None = None, message_id: str = "msg_1") -> str:
    """Base64 of the HMAC alone."""
    stamp = stamp or str(int(time.time()))
    digest = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


async def deliver(client: Client, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    return await client.call("POST", PATH, data=body, headers=sign(body) if headers is None else headers)


@dataclass(frozen=True)
class Held:
    """One unit held by a shopper who has asked to pay for it."""

    client: Client
    book: psycopg.Connection
    campaign: str
    user: str
    id: str
    payment: str

    async def state(self) -> str:
        return str((await self.client.reservation(self.id, self.user))["state"])

    async def say(self, kind: str, **changes: Any) -> Answer:
        return await deliver(self.client, json.dumps(notice(self.payment, kind, **changes)).encode())

    async def events(self, count: int) -> list[str]:
        """The types of its events in the book, once there are so many."""

        async def look() -> list[str]:
            found = self.book.execute(
                "SELECT type FROM order_events WHERE reservation_id = %s ORDER BY version", [self.id]
            )
            return [row[0] for row in found]

        return list(await eventually(look, lambda found: len(found) >= count))

    async def settled(self) -> list[str]:
        """The types of all its events."""
        return await self.events((await self.client.reservation(self.id, self.user))["version"])


@pytest.fixture
async def held(client: Client, book_connection: psycopg.Connection) -> Held:
    campaign = await client.create()
    reservation = (await client.reserve(campaign, "ann")).body["id"]
    payment = (await client.pay(reservation, "ann")).body["payment_id"]
    return Held(client, book_connection, campaign, "ann", reservation, payment)


# Signatures


async def test_a_notice_signed_by_any_standard_library_is_taken(client: Client, held: Held) -> None:
    body = json.dumps(notice(held.payment))
    now = datetime.now(UTC)
    given = Webhook(SECRETS["DOORBUSTER_PSP_SECRET"]).sign("msg_theirs", now, body)
    headers = {
        "webhook-id": "msg_theirs",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": given,
    }
    assert (await deliver(client, body.encode(), headers)).status == 200
    assert await held.state() == "confirmed"


def _signed_by_another(body: bytes) -> dict[str, str]:
    return sign(body, key=b"another key")


def _of_another_body(body: bytes) -> dict[str, str]:
    return sign(body + b" ")


def _of_another_message(body: bytes) -> dict[str, str]:
    return sign(body) | {"webhook-id": "msg_2"}


def _of_another_time(body: bytes) -> dict[str, str]:
    return sign(body) | {"webhook-timestamp": str(int(time.time()) - 1)}


def _without(name: str) -> Callable[[bytes], dict[str, str]]:
    return lambda body: {header: value for header, value in sign(body).items() if header != name}


def _at(seconds: float) -> Callable[[bytes], dict[str, str]]:
    return lambda body: sign(body, at=time.time() + seconds)


def _stamped(stamp: str) -> Callable[[bytes], dict[str, str]]:
    return lambda body: {
        "webhook-id": "msg_1",
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature(body, stamp=stamp)}",
    }


def _given(form: str) -> Callable[[bytes], dict[str, str]]:
    """A signature header in this form; {} is the right signature, [] a wrong one."""
    wrong = base64.b64encode(bytes(32)).decode()
    return lambda body: (
        sign(body) | {"webhook-signature": form.replace("{}", signature(body)).replace("[]", wrong)}
    )


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(_signed_by_another, id="another-key"),
        pytest.param(_of_another_body, id="another-body"),
        pytest.param(_of_another_message, id="another-message"),
        pytest.param(_of_another_time, id="another-time"),
        *(pytest.param(_without(name), id=f"no-{name}") for name in sign(b"")),
        pytest.param(lambda body: {}, id="no-headers"),
        pytest.param(lambda body: dict.fromkeys(sign(b""), ""), id="empty-headers"),
        *(pytest.param(_at(seconds), id=f"at{seconds:+}s") for seconds in (-302, -86_400, 305, 86_400)),
        *(
            pytest.param(_stamped(stamp), id=f"stamp-{stamp:.20}")
            for stamp in ("0", "-1", "now", "1e9", "999999999999", "9" * 400, "1_8e8", "١٧٠٠٠٠٠٠٠٠")
        ),
        *(
            pytest.param(_given(form), id=form)
            for form in ("{}", "v1", "v1,", "v1,[]", "v1a,{}", "v2,{}", "V1,{}", "v1:{}", "v1,v1,{}",
                         "v1,{}x", "v1,x{}", "v1,[],v1,{}", "v1a,{} v1,[]", "v1,[] " * 50, '"v1,{}"', "v1,é")
        ),
    ],
)  # fmt: skip
async def test_a_notice_that_is_not_signed_is_not_believed(
    client: Client, untouched: Scene, headers: Callable[[bytes], dict[str, str]]
) -> None:
    body = json.dumps(notice(untouched.payment)).encode()
    assert_problem(await deliver(client, body, headers(body)), "unauthenticated")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [b"\xff", b"\xed\xa0\x80", "é", "\u2028", b"v1,\xff v1,x"])
async def test_a_signature_in_no_language_is_not_believed(
    up: Stack, untouched: Scene, name: str, value: bytes | str
) -> None:
    body = json.dumps(notice(untouched.payment)).encode()
    headers: dict[str, bytes | str] = {**sign(body), name: value}
    answer = await send(up.url, request("POST", PATH, body, [*headers.items()]))
    assert answer is not None
    assert_problem(answer, "unauthenticated")


@pytest.mark.parametrize(
    "form", ["v1,{}", "v1,[] v1,{}", "v1,{} v1,[]", "v1a,[] v1,{}", "v2,{} v1,{} v1a,x", "v1,[]  v1,{}"]
)
async def test_one_right_signature_among_several_is_enough(client: Client, held: Held, form: str) -> None:
    """While a provider changes its secret it signs with both."""
    body = json.dumps(notice(held.payment)).encode()
    assert (await deliver(client, body, _given(form)(body))).status == 200
    assert await held.state() == "confirmed"


@pytest.mark.parametrize("stamp", ["{}.5", "+{}", " {}", "{}s", "0x{}"])
async def test_a_time_of_signing_is_whole_seconds(client: Client, untouched: Scene, stamp: str) -> None:
    body = json.dumps(notice(untouched.payment)).encode()
    headers = _stamped(stamp.format(int(time.time())))(body)
    if stamp == " {}":  # HTTP takes the space off; the signature is over it
        headers["webhook-timestamp"] = stamp.format(int(time.time())).strip()
    assert_problem(await deliver(client, body, headers), "unauthenticated")


@pytest.mark.parametrize("seconds", [-290, 290])
async def test_a_notice_may_be_nearly_five_minutes_off(client: Client, held: Held, seconds: float) -> None:
    body = json.dumps(notice(held.payment)).encode()
    assert (await deliver(client, body, _at(seconds)(body))).status == 200


def test_the_age_of_a_signature_is_judged_by_the_stores_clock() -> None:
    clock = StoreClock()
    verifier = WebhookVerifier(SECRETS["DOORBUSTER_PSP_SECRET"], clock)
    headers = sign(b"{}")
    for seconds in (-299, 0, 299):
        clock.hear(int(time.time() + seconds) * 1000)
        verifier.verify(headers, b"{}")
    for seconds in (-302, 302):
        clock.hear(int(time.time() + seconds) * 1000)
        with pytest.raises(Problem):
            verifier.verify(headers, b"{}")


# Malformed, unknown, mistaken


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "payment.succeeded"},
        {"data": {}},
        notice("x") | {"type": "payment.created"},
        notice("x") | {"type": "PAYMENT.SUCCEEDED"},
        notice("x") | {"type": None},
        notice("x") | {"type": ["payment.succeeded"]},
        notice("x") | {"timestamp": None},
        notice("x") | {"timestamp": 5},
        notice("x") | {"data": None},
        notice("x") | {"data": []},
        notice("x") | {"data": "{}"},
        *(notice(value) for value in (None, 5, [], {})),  # type: ignore[arg-type]
        *(notice("x", amount=value) for value in ("5000", 5000.0, True, None, [], 10**30)),
        *(notice("x", currency=value) for value in ("", "EURO", "C\0Y", "\n", 156, None, [])),
        *(notice("x", provider_ref=value) for value in ("", "r" * 256, "r\0", "r\n", "\u2028", 5, None, {})),
    ],
    ids=lambda body: f"{[body.get('type'), body.get('data')]!r:.90}",
)  # fmt: skip
async def test_a_notice_that_makes_no_sense_is_malformed(
    client: Client, untouched: Scene, body: dict[str, Any]
) -> None:
    if isinstance(body.get("data"), dict) and body["data"].get("payment_id") == "x":
        body = body | {"data": body["data"] | {"payment_id": untouched.payment}}
    assert_problem(await deliver(client, json.dumps(body).encode()), "malformed_json")


async def test_a_notice_of_bytes_that_are_no_text_is_malformed(client: Client, untouched: Scene) -> None:
    body = json.dumps(notice(untouched.payment)).encode().replace(b"ref-1", b"\xff")
    assert_problem(await deliver(client, body), "malformed_json")


@pytest.mark.parametrize("kind", ["payment.succeeded", "payment.failed", "refund.succeeded"])
async def test_a_payment_that_was_never_asked_for_is_unknown(
    client: Client, untouched: Scene, kind: str
) -> None:
    campaign, digest = untouched.held.split(".")
    other = (await client.reserve(await client.create(), "ann")).body["id"]
    for payment in (
        "",
        "x",
        "\0",
        "🙂",
        "x" * 10_000,
        untouched.held,
        f"{untouched.held}.deposit",
        f"{untouched.held}.balance",
        f"{untouched.held}.half",
        f"{untouched.payment}.refund",
        untouched.payment.upper(),
        f" {untouched.payment}",
        f"{untouched.payment}\n",
        f"{campaign}.{'a' * 24}.full",
        f"no-campaign.{digest}.full",
        f"{other}.full",
    ):
        answer = await deliver(client, json.dumps(notice(payment, kind)).encode())
        assert_problem(answer, "payment_not_found")


@pytest.mark.parametrize(
    "wrong",
    [{"amount": value} for value in (PRICE - 1, PRICE + 1, 0, -PRICE, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)]
    + [{"currency": value} for value in ("EUR", "cny", "C", "元")]
    + [{"amount": 1, "currency": "EUR"}],
    ids=str,
)
async def test_a_wrong_amount_or_currency_is_recorded_once_and_confirms_nothing(
    held: Held, wrong: dict[str, Any]
) -> None:
    for _ in range(3):
        assert_problem(await held.say("payment.succeeded", **wrong), "payment_mismatch")
    assert await held.state() == "held"
    assert await held.settled() == ["reserved", "payment_requested", "payment_rejected"]
    recorded = held.book.execute(
        "SELECT data FROM order_events WHERE reservation_id = %s AND type = 'payment_rejected'", [held.id]
    ).fetchone()
    assert recorded is not None
    said = {"amount": PRICE, "currency": "CNY", "provider_ref": "ref-1"} | wrong
    assert {name: recorded[0][name] for name in said} == said
    status = held.book.execute("SELECT status FROM payments WHERE payment_id = %s", [held.payment]).fetchone()
    assert status == ("pending",)
    offers = await held.client.audit(held.campaign)
    assert (offers["phone"]["held"], offers["phone"]["sold"]) == (1, 0)
    # The right one is taken all the same.
    assert (await held.say("payment.succeeded")).status == 200
    assert await held.state() == "confirmed"


# Again, and out of order


async def test_a_notice_that_comes_again_is_known(held: Held) -> None:
    answers = await asyncio.gather(*(held.say("payment.succeeded") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert (await held.say("payment.succeeded", provider_ref="ref-2")).status == 200
    assert await held.state() == "confirmed"
    assert await held.settled() == ["reserved", "payment_requested", "payment_succeeded"]
    paid = held.book.execute(
        "SELECT status, provider_ref FROM payments WHERE payment_id = %s", [held.payment]
    )
    assert paid.fetchall() == [("succeeded", "ref-1")]
    assert (await held.client.audit(held.campaign))["phone"]["sold"] == 1


async def test_a_payment_that_failed_may_still_succeed(held: Held) -> None:
    for _ in range(2):
        assert (await held.say("payment.failed")).status == 200
        assert await held.state() == "held"
    assert (await held.say("payment.succeeded")).status == 200
    assert await held.state() == "confirmed"
    assert await held.settled() == ["reserved", "payment_requested", "payment_failed", "payment_succeeded"]


async def test_a_payment_that_succeeded_cannot_fail_later(held: Held) -> None:
    assert (await held.say("payment.succeeded")).status == 200
    assert (await held.say("payment.failed")).status == 200
    assert await held.state() == "confirmed"
    assert (await held.client.pay(held.id, held.user)).body["status"] == "succeeded"
    assert await held.settled() == ["reserved", "payment_requested", "payment_succeeded"]


async def test_one_outcome_wins_when_both_come_at_once(held: Held) -> None:
    kinds = ["payment.succeeded", "payment.failed"] * 10
    answers = await asyncio.gather(*(held.say(kind) for kind in kinds))
    assert {answer.status for answer in answers} == {200}
    assert await held.state() == "confirmed"
    assert (await held.settled())[-1] == "payment_succeeded"
    await held.client.audit(held.campaign)


async def test_what_a_provider_adds_is_ignored(client: Client, held: Held) -> None:
    found = notice(held.payment, fee=12, card={"last4": "4242"}) | {"id": "evt_1", "livemode": False}
    assert (await deliver(client, json.dumps(found).encode())).status == 200
    assert await held.state() == "confirmed"


@pytest.mark.parametrize("paid", [False, True])
async def test_a_refund_that_was_never_asked_for_is_unknown(held: Held, paid: bool) -> None:
    if paid:
        await held.say("payment.succeeded")
    state, events = await held.state(), await held.settled()
    assert_problem(await held.say("refund.succeeded"), "payment_not_found")
    assert (await held.state(), await held.settled()) == (state, events)


# After the end


async def test_a_payment_for_a_cancelled_reservation_takes_the_stock_again(held: Held) -> None:
    path = f"/v1/reservations/{held.id}"
    cancelled = await held.client.call("DELETE", path, user=held.user)
    assert cancelled.body["state"] == "cancelled"
    assert (await held.say("payment.succeeded")).status == 200
    assert await held.state() == "confirmed"
    offers = await held.client.audit(held.campaign)
    assert offers["phone"] == {"sku": "phone", "stock": 100, "held": 0, "sold": 1, "available": 99}


async def test_a_payment_for_a_cancelled_reservation_that_is_sold_out_is_refunded_once(held: Held) -> None:
    await held.client.call("DELETE", f"/v1/reservations/{held.id}", user=held.user)
    for number in range(20):
        assert (await held.client.reserve(held.campaign, f"quick-{number}", quantity=5)).status == 201
    for _ in range(3):
        assert (await held.say("payment.succeeded")).status == 200
    assert await held.state() == "refunded"

    async def refunds() -> list[tuple[object, ...]]:
        return held.book.execute(
            "SELECT payment_id, amount, currency, status FROM refunds WHERE reservation_id = %s", [held.id]
        ).fetchall()

    once = [(held.payment, PRICE, "CNY", "succeeded")]
    assert await eventually(refunds, lambda found: found == once) == once
    # Nor does it end twice: the provider says again what the sandbox has told us already.
    version = (await held.client.reservation(held.id, held.user))["version"]
    assert (await held.say("refund.succeeded")).status == 200
    assert (await held.say("payment.failed")).status == 200
    assert (await held.client.reservation(held.id, held.user))["version"] == version
    assert (await held.client.audit(held.campaign))["phone"]["sold"] == 0


# The sandbox


async def test_the_sandbox_delivers_again_when_it_is_called_again(held: Held) -> None:
    for _ in range(3):
        answer = await held.client.settle_payment(held.payment)
        assert (answer.status, answer.body) == (200, {"webhook_status": 200})
    assert await held.settled() == ["reserved", "payment_requested", "payment_succeeded"]


async def test_a_failed_payment_keeps_the_hold_and_may_be_tried_again(held: Held) -> None:
    before = await held.client.reservation(held.id, held.user)
    answer = await held.client.settle_payment(held.payment, "failed")
    assert answer.body == {"webhook_status": 200}
    after = await held.client.reservation(held.id, held.user)
    assert (after["state"], after["due"]) == ("held", before["due"])
    again = await held.client.pay(held.id, held.user)
    assert (again.status, again.body["payment_id"], again.body["status"]) == (200, held.payment, "pending")
    assert (await held.client.settle_payment(held.payment)).body == {"webhook_status": 200}
    assert await held.state() == "confirmed"


async def test_the_sandbox_refunds_only_for_who_can_sign(client: Client, untouched: Scene) -> None:
    """And says so only of refunds that were decided on."""
    asked = {
        "refund_id": f"{untouched.payment}.refund",
        "payment_id": untouched.payment,
        "amount": PRICE,
        "currency": "CNY",
        "reason": "because",
    }
    assert_problem(await client.call("POST", "/sandbox/refunds", json_body=asked), "unauthenticated")
    body = json.dumps(asked).encode()
    answer = await client.call("POST", "/sandbox/refunds", data=body, headers=sign(body))
    assert (answer.status, answer.body) == (200, {"webhook_status": 404})
