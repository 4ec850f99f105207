"""The report: every figure against the events themselves, and traffic against its client's own log."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from loadtests.rehearsal.document import main_order
from settlement.report.reader import ReportReader
from settlement.report.report import Report, Reporter
from tests.e2e.recount import Log, check_minutes, recounted
from tests.e2e.wire import assert_problem
from tests.stack import Client, Stack, eventually, in_phase, presale, sale, token, trade_in

Json = dict[str, Any]


@pytest.fixture
def reporter(up: Stack, postgres_server_dsn: str) -> Reporter:
    return Reporter(ReportReader(postgres_server_dsn.replace("/postgres?", "/e2e?")))


async def created(client: Client, document: Json) -> Log:
    assert (await client.put(document)).status == 201
    return Log(document["id"])


async def reported(client: Client, campaign: str, query: str = "") -> Any:
    answer = await client.call("GET", f"/v1/campaigns/{campaign}/report{query}", service=True)
    assert answer.status == 200, answer
    return answer.body


async def agrees(reporter: Reporter, book: psycopg.Connection, log: Log) -> Json:
    """The report, once it says what the events and the client's log say."""

    async def look() -> tuple[Json, Json]:
        found = await reporter.report(log.campaign)
        assert isinstance(found, Report), found
        return found.to_json(), recounted(book, log.campaign, log)

    def same(found: tuple[Json, Json]) -> bool:
        return all(found[0][part] == expected for part, expected in found[1].items())

    try:
        report, _ = await eventually(look, same)
    except TimeoutError:
        report, expected = await look()
        for part in expected:
            assert report[part] == expected[part]
        raise
    check_minutes(book, log.campaign, report)
    return report


def of_tier(client: Client, user: str, tier: str) -> str:
    client._tokens[user] = token(user, tier=tier)
    return user


async def test_a_flash_sales_figures_are_what_its_events_say(
    reporter: Reporter, client: Client, book_connection: psycopg.Connection
) -> None:
    offers = [
        {"sku": "phone", "title": "Phone", "price": 5000, "stock": 3, "per_user": 2},
        {"sku": "rare", "price": 777, "stock": 1},
        {"sku": "case", "price": 100, "stock": 40},
        {"sku": "dropped", "price": 100, "stock": 1000},
    ]
    spend = [{"spend": 9000, "save": 500}]
    document = sale(offers=offers, hold_seconds=2, waitlist_hold_seconds=600, spend_and_save=spend)
    log = await created(client, document)
    gold = of_tier(client, "gold", "gold")
    for user in ("ann", "bob", gold, "ann"):
        await log.look(client, user)
    await log.look(client, None, **{"X-Forwarded-For": "192.0.2.1"})
    await log.look(client, None, **{"X-Forwarded-For": "192.0.2.1"})
    await log.look(client, None, **{"X-Forwarded-For": "192.0.2.2"})
    await log.watch(client, "somebody at this address")
    await log.quote(client, "ann", sku="phone")

    late = (await log.reserve(client, "late", sku="rare", key="k")).body
    asked = (await client.pay(late["id"], "late")).body
    two = (await log.reserve(client, "ann", quantity=2, key="two")).body
    assert (await log.reserve(client, "ann", quantity=2, key="two")).body["id"] == two["id"]
    fickle = (await log.reserve(client, "bob")).body
    await client.paid(two["id"], "ann")
    assert_problem(await log.reserve(client, "ann"), "quota_exceeded")
    assert_problem(await log.reserve(client, "cat"), "sold_out")
    assert_problem(await log.reserve(client, "cat", sku="nothing"), "offer_not_found")
    assert (await log.join(client, "cat")).status == 201
    await client.cancel(fickle["id"], "bob")
    own = f"/v1/reservations?campaign={log.campaign}"
    served = await eventually(lambda: client.call("GET", own, user="cat"), lambda a: a.body["reservations"])
    await client.paid(served.body["reservations"][0]["id"], "cat")
    held = [(await log.reserve(client, user, sku="case", quantity=3)).body for user in (gold, "dan", "eve")]
    await client.paid(held[0]["id"], gold)

    await client.in_state(late["id"], "late", "expired")  # and another takes the only one there is
    other = (await log.reserve(client, "quick", sku="rare")).body
    await client.paid(other["id"], "quick")
    await client.settle_payment(asked["payment_id"])
    await client.in_state(late["id"], "late", "refunded")
    await client.in_state(held[1]["id"], "dan", "expired")
    again = await client.pay(held[2]["id"], "eve")
    assert_problem(again, "payment_window_closed")
    path = f"/v1/campaigns/{document['id']}/offers/phone/stock"
    assert (await client.call("POST", path, service=True, json_body={"delta": 2})).status == 200
    kept = [offers[0] | {"stock": 5}, *offers[1:3]]
    assert (await client.put(document | {"offers": kept})).status == 200

    report = await agrees(reporter, book_connection, log)
    summary = report["summary"]
    assert (summary["visitors"], summary["visits"]) == (6, 8)
    assert (summary["reservations"], summary["orders"], summary["gmv"]) == (8, 4, 9_500 + 5000 + 300 + 777)
    assert (summary["refused"], summary["replayed"], summary["quotes"]) == (3, 1, 1)
    assert report["refunds"]["by_reason"]["paid_after_end"] == {"count": 1, "amount": 777}
    by_sku = {offer["sku"]: offer for offer in report["offers"]}
    assert by_sku["phone"]["sold_out_s"] > 0
    assert by_sku["phone"]["stock"] == 5
    assert by_sku["case"]["sold_out_at"] is None
    assert report["minutes"][-1]["units_left"] < 100, "of an offer that was taken off, none are left"

    # What happens a month later does not make long steps of the sale's.
    for later in (
        "UPDATE orders SET updated_at = updated_at + interval '30 days' WHERE reservation_id = %s",
        "UPDATE order_events SET at = at + interval '30 days' WHERE reservation_id = %s AND type = 'expired'",
    ):
        assert book_connection.execute(later, [held[1]["id"]]).rowcount == 1
    *steps, last = (await agrees(reporter, book_connection, log))["levels"]["case"]
    assert [step["after_s"] for step in steps] == [step["after_s"] for step in report["levels"]["case"]][
        : len(steps)
    ]
    assert 31 * 86_400 > last["after_s"] > 30 * 86_400
    assert [tier["tier"] for tier in report["tiers"]] == ["gold", None]
    assert report["waitlist"] == {"joined": 1, "offered": 1, "paid": 1}


async def test_a_presales_figures_are_what_its_events_say(
    reporter: Reporter, client: Client, book_connection: psycopg.Connection
) -> None:
    gifts = [{"sku": "case", "first": 2}]
    offers = [
        {"sku": "phone", "price": 5000, "stock": 20, "deposit": 100, "deposit_worth": 200, "gifts": gifts}
    ]
    document = presale(offers=offers, hold_seconds=2)
    log = await created(client, document)
    held = {}
    users = ("steady", "more", "less", "fickle", "forgetful", "late", "idle", "undecided")
    for user in users:
        await log.look(client, user)
        quantity = 2 if user == "less" else 1
        held[user] = (await log.reserve(client, user, quantity=quantity)).body["id"]
        if user != "idle":
            await client.paid(held[user], user, "deposit")
    await client.amend(held["more"], "more", 2)
    await client.paid(held["more"], "more", "deposit")
    await client.amend(held["less"], "less", 1)
    await client.amend(held["undecided"], "undecided", 3)
    await client.cancel(held["fickle"], "fickle")
    await client.in_state(held["idle"], "idle", "expired")
    await eventually(
        lambda: client.reservation(held["undecided"], "undecided"), lambda found: found["quantity"] == 1
    )
    await client.put(in_phase(document, "balance"))
    for user in ("steady", "more", "undecided"):
        await client.paid(held[user], user, "balance")
    asked = (await client.pay(held["late"], "late", "balance")).body
    await client.put(in_phase(document, "closed"))
    for user in ("forgetful", "late", "less"):
        await client.in_state(held[user], user, "forfeited")
    await client.settle_payment(asked["payment_id"])  # it saves what was forfeited
    await client.in_state(held["late"], "late", "confirmed")
    assert_problem(await log.reserve(client, "tardy"), "ended")

    report = await agrees(reporter, book_connection, log)
    assert report["presale"] == {
        "deposits": 7,
        "deposits_amount": 900,
        "completed": 4,
        "conversion": 0.571429,
        "forfeits": 2,
        "forfeits_amount": 200,
    }
    assert {name: one["count"] for name, one in report["refunds"]["by_reason"].items()} == {
        "amended": 1,
        "cancelled": 1,
    }
    assert [gift["promised"] for gift in report["gifts"]] == [2]


async def test_a_trade_ins_figures_are_what_its_events_say(
    reporter: Reporter, client: Client, book_connection: psycopg.Connection
) -> None:
    tv = f"tv-{uuid.uuid4().hex[:8]}"
    document = trade_in(
        entitlement={"skus": [tv], "min_spend": 3000, "grants": 2},
        offers=[{"sku": "soundbar", "price": 900, "stock": 100}],
    )
    log = await created(client, document)
    orders = {user: f"{user}-{uuid.uuid4().hex[:8]}" for user in ("ann", "bob", "cat", "dan")}
    for user, order in orders.items():
        await client.report(order, user, (tv, 500 if user == "dan" else 4000))
        await log.look(client, user)
    ann, bob, cat = [
        (await log.reserve(client, user, sku="soundbar", quantity=n, order_id=orders[user])).body
        for user, n in (("ann", 1), ("bob", 2), ("cat", 1))
    ]
    poor = await log.reserve(client, "dan", sku="soundbar", order_id=orders["dan"])
    assert_problem(poor, "not_eligible")
    assert_problem(
        await log.reserve(client, "ann", sku="soundbar", quantity=2, order_id=orders["ann"]), "not_eligible"
    )
    await client.paid(ann["id"], "ann")
    await client.paid(bob["id"], "bob")
    assert (await client.cancel_order(orders["bob"])).status == 200
    await client.in_state(bob["id"], "bob", "refunded")
    assert (await client.cancel_order(orders["cat"])).status == 200
    await client.in_state(cat["id"], "cat", "cancelled")

    report = await agrees(reporter, book_connection, log)
    assert report["trade_in"] == {
        "qualified": 1,
        "units_granted": 2,
        "units_used": 1,
        "use": 0.5,
        "taken_back": 2,
        "units_taken_back": 3,
    }


async def test_who_makes_a_report_of_months_of_minutes_answers_meanwhile(
    reporter: Reporter, client: Client, book_connection: psycopg.Connection
) -> None:
    """Measured in CPU time between two turns of the loop: others may use the machine."""
    campaign = await client.create()
    await eventually(lambda: reporter.report(campaign), lambda found: isinstance(found, Report))
    book_connection.execute(
        "INSERT INTO traffic SELECT %s, timestamptz '2026-01-01' + minute * interval '1 min', what, 1 FROM "
        "generate_series(1, 60000) minute, unnest(ARRAY['visit', 'held', 'sold_out', 'quoted']) what",
        [campaign],
    )
    making = asyncio.create_task(reporter.report(campaign))
    longest, before = 0.0, time.thread_time()
    while not making.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    assert isinstance(await making, Report)
    assert longest < 0.4, "seconds in which a gateway answers nobody; most of them the garbage collector's"


async def test_what_was_rehearsed_is_no_main_order_of_the_campaign(
    reporter: Reporter, client: Client, book_connection: psycopg.Connection
) -> None:
    """Not even of one that it qualifies for, as of one that any order does."""
    sku = f"tv-{uuid.uuid4().hex}"
    document = trade_in(entitlement={"skus": [sku], "grants": 2})
    await created(client, document)
    orders = [f"order-{uuid.uuid4().hex}" for _ in range(4)]
    for order in orders[1:]:
        rehearsed = main_order(order, "somebody")
        rehearsed["lines"][0]["sku"] = sku
        assert (await client.call("POST", "/v1/orders", service=True, json_body=rehearsed)).status == 201
    await client.report(orders[0], "ann", (sku, 3000))
    known = "SELECT FROM main_orders WHERE order_id = ANY(%s)"

    async def settled() -> int:
        return len(book_connection.execute(known, [orders]).fetchall())

    await eventually(settled, lambda found: found == len(orders))
    report = await reporter.report(document["id"])
    assert isinstance(report, Report)
    assert report.to_json()["trade_in"]["qualified"] == 1


async def test_traffic_is_counted_to_the_request_over_two_processes(
    reporter: Reporter, client: Client, book_connection: psycopg.Connection
) -> None:
    """And while it is, reports are made, which hold up nothing and are all of one instant."""
    document = sale(offers=[{"sku": "phone", "price": 5000, "stock": 30, "per_user": 1}])
    log = await created(client, document)

    async def shop(number: int) -> None:
        user = f"shopper-{number % 60}"
        await log.look(
            client, user if number % 2 else None, **{"X-Forwarded-For": f"2001:db8::{number % 60}"}
        )
        await log.reserve(client, user, key=f"key-{number % 80}")

    async def read() -> None:
        for _ in range(8):
            summary = (await reported(client, document["id"]))["summary"]
            assert summary["units_reserved"] == summary["reservations"] <= 30

    await asyncio.gather(*(shop(number) for number in range(240)), read())
    report = await agrees(reporter, book_connection, log)
    assert sum(log.counts.values()) == 480
    assert report["summary"]["visitors"] == 60
    assert set(report["refusals"]) <= {"sold_out", "quota_exceeded"}
    metrics = (await client.call("GET", "/metrics")).body.decode()
    assert f'doorbuster_visits_total{{campaign="{document["id"]}"}} 240.0' in metrics


async def test_the_endpoint_says_what_the_command_says_and_only_to_services(
    up: Stack, client: Client
) -> None:
    earlier, campaign = [await client.create() for _ in range(2)]
    await client.reserve(campaign, "ann")
    await client.reserve(earlier, "ann")
    path = f"/v1/campaigns/{campaign}/report"

    async def both() -> tuple[Json, Json]:
        said = up.run("report", campaign, "--json", "--compare", earlier)
        found = await reported(client, campaign, f"?compare={earlier}")
        return found, json.loads(said.stdout)

    def settled(found: tuple[Json, Json]) -> bool:
        return all(one["summary"]["requests"] == 1 == one["summary"]["reservations"] for one in found)

    answers = await eventually(both, settled)
    for answer in answers:
        del answer["as_of"]
    assert answers[0] == answers[1]
    assert answers[0]["compared"]["figures"]["summary.reservations"] == {
        "now": 1,
        "earlier": 1,
        "change": 0.0,
    }
    assert_problem(await client.call("GET", path), "unauthenticated")
    assert_problem(await client.call("GET", path, user="ann"), "forbidden")
    nowhere = ("nowhere", "%00", "%ED%A0%80")
    for query in (
        f"{one}{name}{rest}"
        for name in nowhere
        for one, rest in (("/v1/campaigns/", "/report"), (f"{path}?compare=", ""))
    ):
        assert_problem(await client.call("GET", query, service=True), "campaign_not_found")


async def test_the_command_writes_a_page_and_tables_and_says_in_a_line_what_is_wrong(
    up: Stack, client: Client, tmp_path: Path
) -> None:
    campaign = await client.create(title="双十一 <b>Sale</b>")
    path = f"/v1/campaigns/{campaign}/report"
    await eventually(lambda: client.call("GET", path, service=True), lambda answer: answer.status == 200)
    page, directory = tmp_path / "new" / "report.html", tmp_path / "tables"
    done = up.run("report", campaign, "--html", str(page), "--csv", str(directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(page), str(directory)]
    assert "双十一 &lt;b&gt;Sale" in page.read_text("utf-8")
    assert {path.name for path in directory.iterdir()} >= {
        *("summary.csv", "offers.csv", "tiers.csv", "minutes.csv", "refusals.csv")
    }
    for arguments, code, text in (
        ([campaign, "--compare", "nowhere"], 2, "there is no campaign nowhere"),
        ([os.fsdecode(b"\xff")], 2, "there is no campaign "),
        ([campaign, "--html", str(page / "under")], 2, "cannot write"),
    ):
        done = up.run("report", *arguments)
        assert done.returncode == code
        assert text in done.stderr.casefold()
        assert done.stderr.count("\n") == 1


def test_a_book_that_is_away_is_said_in_a_line(up: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOORBUSTER_POSTGRES_DSN", "postgresql://postgres@127.0.0.1:1/postgres")
    done = up.run("report", "any")
    assert done.returncode == 3
    assert done.stderr.startswith("doorbuster: BookUnavailable: ")
    assert done.stderr.count("\n") == 1
