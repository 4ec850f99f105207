"""One reservation, one trace: from the request that made it to the last of its rows, through every role."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reservation.ids import ReservationId
from reservation.tracing import span_id_of, trace_id_of
from tests.stack import Client, eventually, presale, stack, token
from tests.traces.collector import Collector, Seen, collecting
from tests.traces.conftest import SHOPPER_ADDRESS, Traced

USER = "wendelin-a-name-like-no-other"
RESERVE = "POST /v1/campaigns/{campaign}/reservations"
PAY = "POST /v1/reservations/{reservation}/payments"
WEBHOOK = "POST /v1/payments/webhook"
CALLER = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
TRACEPARENT = f"00-{CALLER[0]:032x}-{CALLER[1]:016x}-01"


def versions_of(name: str, spans: list[Seen]) -> set[int]:
    return {span.attributes["doorbuster.version"] for span in spans if span.name == name}


async def whole(traced: Traced, reservation: str, versions: int) -> list[Seen]:
    """The reservation's trace, once each of its versions was published and settled, with each request."""

    async def look() -> list[Seen]:
        return traced.collector.trace(reservation)

    def enough(spans: list[Seen]) -> bool:
        known = {span.span_id for span in spans} | {0}
        each = set(range(1, versions + 1))
        passed_on = versions_of("publish", spans) >= each and versions_of("settle", spans) >= each
        return passed_on and all(one.parent_id in known for one in spans)

    spans: list[Seen] = await eventually(look, enough)
    assert_one_trace(traced.collector, reservation, spans)
    return spans


def assert_one_trace(collector: Collector, reservation: str, spans: list[Seen]) -> None:
    """All that is about it is in this trace, begins once, and hangs together."""
    about = [one for one in collector.spans if one.attributes.get("doorbuster.reservation") == reservation]
    assert {span.trace_id for span in about} == {spans[0].trace_id}
    (root,) = [span for span in spans if span.parent_id == 0]
    assert root is spans[0]
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert span.start_ns <= span.end_ns
        if span is not root:
            parent = by_id[span.parent_id]
            assert parent.start_ns <= span.start_ns, (parent, span)
            if span.role == parent.role == "gateway" and parent.kind == "SPAN_KIND_SERVER":
                assert span.end_ns <= parent.end_ns, (parent, span)
        # The span of a version is where everybody looks for it.
        made = span.attributes.get("doorbuster.version")
        if span.name == "move.lua" and made:
            found = ReservationId.parse(reservation)
            assert found is not None
            assert span.span_id == span_id_of(found, made)
    for name in ("publish", "settle"):
        for span in spans:
            if span.name == name:
                parent = by_id[span.parent_id]
                assert parent.name == (
                    "reserve.lua" if span.attributes["doorbuster.version"] == 1 else "move.lua"
                )


def names(spans: list[Seen]) -> set[tuple[str, str]]:
    return {(span.role, span.name) for span in spans}


async def test_a_reservation_is_one_trace_from_the_request_to_its_last_row(
    traced: Traced, client: Client
) -> None:
    campaign, key = await client.create(), f"key-{uuid.uuid4().hex}"
    assert (
        await client.reserve(campaign, "somebody before")
    ).status == 201  # from now on it is the fast lane's
    await client.call("GET", "/v1/reservations", user=USER)  # the fast lane takes who is known
    made = await client.reserve(campaign, USER, key=key)
    name = made.body["id"]
    payment = await client.pay(name, USER)
    await client.settle_payment(payment.body["payment_id"])
    assert (await client.reservation(name, USER))["state"] == "confirmed"
    spans = await whole(traced, name, 3)
    assert names(spans) >= {
        ("gateway", RESERVE),
        ("gateway", "reserve.lua"),
        ("relay", "publish"),
        ("worker", "settle"),
        ("gateway", PAY),
        ("gateway", WEBHOOK),
        ("gateway", "move.lua"),
    }
    root, run = spans[0], next(span for span in spans if span.name == "reserve.lua")
    assert (root.name, root.kind, root.attributes["doorbuster.outcome"]) == (
        RESERVE,
        "SPAN_KIND_SERVER",
        "held",
    )
    assert root.attributes["http.response.status_code"] == 201
    assert (run.parent_id, run.attributes["doorbuster.group.reservations"]) == (root.span_id, 1)
    assert run.end_ns <= root.end_ns
    assert {span.resource["service.name"] for span in spans} == {"doorbuster"}
    assert all(span.resource["service.version"] for span in spans)
    told = repr(spans)
    for secret in (USER, key, token(USER), SHOPPER_ADDRESS, "sandbox:", "wendelin"):
        assert secret not in told


async def test_a_retry_is_in_the_trace_of_what_it_retries(traced: Traced, client: Client) -> None:
    campaign, key = await client.create(), uuid.uuid4().hex
    first = await client.reserve(campaign, USER, key=key)
    again = await client.reserve(campaign, USER, key=key)
    assert again.body["id"] == first.body["id"]
    spans = await eventually_with(traced, first.body["id"], (RESERVE, "replayed"))
    (replay,) = [
        span
        for span in spans
        if span.attributes.get("doorbuster.outcome") == "replayed" and span.name == RESERVE
    ]
    assert replay.parent_id == next(span for span in spans if span.name == "reserve.lua").span_id


async def eventually_with(traced: Traced, reservation: str, *wanted: tuple[str, str]) -> list[Seen]:
    """The reservation's trace, once there are spans of these names and outcomes."""

    async def look() -> list[Seen]:
        return traced.collector.trace(reservation)

    def enough(spans: list[Seen]) -> bool:
        there = {(span.name, span.attributes.get("doorbuster.outcome")) for span in spans}
        known = {span.span_id for span in spans} | {0}
        return there >= set(wanted) and all(span.parent_id in known for span in spans)

    found: list[Seen] = await eventually(look, enough)
    return found


async def test_expiry_is_in_the_trace(traced: Traced, client: Client) -> None:
    campaign = await client.create(hold_seconds=1)
    name = (await client.reserve(campaign, USER)).body["id"]
    spans = await whole(traced, name, 2)
    assert {("sweeper", "lapse"), ("sweeper", "move.lua")} <= names(spans)
    lapse = next(span for span in spans if span.name == "lapse")
    move = next(span for span in spans if span.name == "move.lua")
    assert (move.parent_id, move.attributes["doorbuster.event"]) == (lapse.span_id, "expired")


async def test_a_refund_is_in_the_trace(traced: Traced, client: Client) -> None:
    document = presale()
    assert (await client.put(document)).status == 201
    name = (await client.reserve(document["id"], USER)).body["id"]
    await client.paid(name, USER, "deposit")
    assert (await client.cancel(name, USER)).body["state"] == "cancelled"
    spans = await eventually_with(traced, name, ("ask for refund", "taken"), ("move.lua", "moved"))
    refund = next(span for span in spans if span.name == "ask for refund")
    assert (refund.role, refund.kind) == ("worker", "SPAN_KIND_CLIENT")
    await whole(traced, name, 5)  # with the provider's word that it was made


async def test_what_a_waitlist_led_to_begins_with_the_sweeper_and_is_notified_in_its_trace(
    traced: Traced, client: Client
) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 5000, "stock": 1}])
    first = (await client.reserve(campaign, "somebody before")).body["id"]
    assert (await client.join(campaign, USER)).status in (200, 201)
    await client.cancel(first, "somebody before")

    async def offered() -> Any:
        return (await client.call("GET", f"/v1/reservations?campaign={campaign}", user=USER)).body[
            "reservations"
        ]

    (held,) = await eventually(offered, bool)
    spans = await eventually_with(traced, held["id"], ("notify", "sent"), ("reserve.lua", "moved"))
    assert (spans[0].role, spans[0].name) == ("sweeper", "reserve.lua")
    notified = next(span for span in spans if span.name == "notify")
    assert (notified.role, notified.parent_id) == ("worker", spans[0].span_id)


async def test_a_refusal_that_is_traced_names_its_trace(traced: Traced, client: Client) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 5000, "stock": 1}])
    assert (await client.reserve(campaign, "somebody before")).status == 201
    for _ in range(2):  # on either lane
        refused = await client.reserve(campaign, USER, key="the same")
        assert refused.code == "sold_out"
        trace_id = int(refused.body["trace_id"], 16)
        assert trace_id == trace_id_of(ReservationId.derive(campaign, USER, "the same"))

    async def look() -> list[Seen]:
        return [span for span in traced.collector.by_id(trace_id) if span.name == RESERVE]

    found = await eventually(look, lambda spans: len(spans) == 2)
    assert {(span.parent_id, span.attributes["doorbuster.outcome"]) for span in found} == {(0, "sold_out")}


async def test_a_callers_trace_is_linked_to_a_reservation_and_the_parent_of_other_requests(
    traced: Traced, client: Client
) -> None:
    campaign = await client.create()
    headers = {"traceparent": TRACEPARENT, "Idempotency-Key": uuid.uuid4().hex}
    path = f"/v1/campaigns/{campaign}/reservations"
    name = (await client.call("POST", path, user=USER, json_body={"sku": "phone"}, headers=headers)).body[
        "id"
    ]
    refused = await client.call("GET", "/v1/campaigns/never", headers={"traceparent": TRACEPARENT})
    assert refused.status == 404
    spans = await whole(traced, name, 1)
    assert spans[0].links == [CALLER]

    async def look() -> list[Seen]:
        return traced.collector.by_id(CALLER[0])

    (span,) = await eventually(look, bool)
    assert (span.parent_id, span.attributes["doorbuster.outcome"]) == (CALLER[1], "campaign_not_found")


async def test_what_goes_wrong_names_its_trace(traced: Traced, client: Client) -> None:
    broken = await client.call("POST", "/v1/campaigns/never/quote", user=USER, data=b"{")
    assert broken.code == "malformed_json"
    assert re.fullmatch("[0-9a-f]{32}", broken.body["trace_id"])

    async def look() -> list[Seen]:
        return traced.collector.by_id(int(broken.body["trace_id"], 16))

    (span,) = await eventually(look, bool)
    assert (span.name, span.attributes["doorbuster.campaign"]) == (
        "POST /v1/campaigns/{campaign}/quote",
        "never",
    )


async def test_a_collector_that_hangs_holds_nobody_up(traced: Traced, client: Client) -> None:
    campaign = await client.create()
    traced.collector.hangs = True
    try:
        started = time.monotonic()
        for n in range(90):
            assert (await client.reserve(campaign, f"user-{n % 50}")).status == 201
        # A batch is sent after a second: this is over before the first of them is given up.
        assert time.monotonic() - started < 20
        async with asyncio.timeout(5):
            assert (await client.reserve(campaign, USER)).status == 201
    finally:
        traced.collector.hangs = False


def test_what_was_traced_last_is_sent_before_the_end_and_without_a_broker(
    tmp_path: Path, empty_redis_url: str, postgres_dsn: str
) -> None:
    with collecting() as collector:
        environment = {
            "DOORBUSTER_TRACES_URL": collector.url,
            "DOORBUSTER_TRACES_SAMPLE": "1",
            "DOORBUSTER_REDIS_URL": empty_redis_url,
            "DOORBUSTER_POSTGRES_DSN": postgres_dsn,
        }

        async def sell(url: str) -> str:
            async with aiohttp.ClientSession() as session:
                client = Client(url, session)
                name = str((await client.reserve(await client.create(), USER)).body["id"])
                await client.paid(name, USER)

                async def look() -> set[int]:
                    return versions_of("settle", collector.trace(name))

                await eventually(look, lambda versions: versions == {1, 2, 3})
                await client.amend(name, USER, 2)
                return name

        with stack(tmp_path / "data", "--workers", "1", environment=environment) as running:
            name = asyncio.run(sell(running.url))
        last = next(span for span in collector.trace(name) if span.name.startswith("PATCH"))
    assert last.attributes["doorbuster.outcome"] == "wrong_state"
    assert not [span for span in collector.spans if span.role == "relay"]


OFF = """
import asyncio, sys
import doorbuster.cli, doorbuster.roles, doorbuster.stack, gateway.app, gateway.server
from doorbuster import bootstrap
from doorbuster.settings import Settings
from reservation.tracing import NO_TRACER

async def main():
    for changes in ({}, {"traces_url": "http://127.0.0.1:1", "traces_sample": 0}):
        async with bootstrap.tracer(Settings(**changes), "gateway") as tracer:
            assert tracer is NO_TRACER
    # Of the rest, redis-py imports what it finds installed for metrics of its own, which are off.
    ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf")
    print([name for name in sys.modules if name.startswith(ours)])

asyncio.run(main())
"""


def test_where_traces_are_off_nothing_that_makes_or_sends_them_is_even_imported() -> None:
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TRACES_URL", "collector:4318", "must start with http:// or https://"),
        ("TRACES_SAMPLE", "1.5", "less than or equal to 1"),
        ("TRACES_SAMPLE", "some", "valid number"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_malformed_setting_stops_the_start_with_one_clear_line(name: str, value: str, said: str) -> None:
    from doorbuster.settings import SettingsError, read_settings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"DOORBUSTER_{name}", value)
        with pytest.raises(SettingsError, match=rf"^DOORBUSTER_{name}: .*{re.escape(said)}"):
            read_settings()
