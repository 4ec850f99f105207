"""The promises, through HTTP, over two gateway processes, with real servers behind them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import psycopg

from tests.stack import Client, Stack, eventually


async def test_never_oversells(client: Client, up: Stack) -> None:
    """2,000 concurrent buyers for 100 units: exactly 100 held."""
    campaign = await client.create()
    answers = await asyncio.gather(*(client.reserve(campaign, f"buyer-{i}") for i in range(2_000)))
    assert Counter((answer.status, answer.code) for answer in answers) == {
        (201, None): 100,
        (409, "sold_out"): 1_900,
    }
    assert len({answer.body["id"] for answer in answers if answer.status == 201}) == 100
    offers = await client.audit(campaign)
    assert offers["phone"] == {"sku": "phone", "stock": 100, "held": 100, "sold": 0, "available": 0}


async def test_never_beyond_a_quota(client: Client) -> None:
    """A user with quota 2 sends 50 concurrent requests: exactly 2."""
    campaign = await client.create(per_user=2)
    answers = await asyncio.gather(*(client.reserve(campaign, "greedy") for _ in range(50)))
    assert Counter(answer.code for answer in answers) == {None: 2, "quota_exceeded": 48}
    assert (await client.audit(campaign))["phone"]["held"] == 2


async def test_one_key_is_one_reservation(client: Client) -> None:
    """One key sent 50 times concurrently: one reservation."""
    campaign = await client.create()
    answers = await asyncio.gather(*(client.reserve(campaign, "ann", key="once") for _ in range(50)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["id"] for answer in answers}) == 1
    replayed = Counter(answer.headers.get("Idempotent-Replayed") for answer in answers)
    assert replayed == {None: 1, "true": 49}
    assert (await client.audit(campaign))["phone"]["held"] == 1


async def test_expiry_races_payment_and_one_wins(client: Client, book_connection: psycopg.Connection) -> None:
    """500 holds are paid around the instant they expire: one terminal state each, stock conserved."""
    offers = [{"sku": "phone", "price": 5000, "stock": 500}]
    campaign = await client.create(hold_seconds=2, offers=offers)
    gate = asyncio.Semaphore(50)

    async def shop(number: int) -> tuple[str, str]:
        user = f"racer-{number}"
        async with gate:
            held = (await client.reserve(campaign, user)).body
            payment = (await client.pay(held["id"], user)).body
        due = datetime.fromisoformat(held["due"]["by"])
        # Spread over the half second before and the half second after the deadline.
        at = due + timedelta(seconds=(number % 100 - 50) / 100)
        await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))
        answer = await client.settle_payment(payment["payment_id"])
        assert answer.body == {"webhook_status": 200}
        return held["id"], user

    shoppers = await asyncio.gather(*(shop(number) for number in range(500)))
    # Everyone paid, and there was stock for everyone: whoever won each race, the goods are sold.
    states = [(await client.reservation(name, user))["state"] for name, user in shoppers]
    assert Counter(states) == {"confirmed": 500}
    offers_found = await client.audit(campaign)
    assert offers_found["phone"] == {"sku": "phone", "stock": 500, "held": 0, "sold": 500, "available": 0}
    expired = book_connection.execute(
        "SELECT count(*) FROM order_events e JOIN orders o USING (reservation_id)"
        " WHERE o.campaign = %s AND e.type = 'expired'",
        [campaign],
    ).fetchone()
    assert expired is not None
    assert 0 < expired[0] < 500, "neither side won every race"


async def test_late_payments_without_stock_are_refunded_once(
    client: Client, book_connection: psycopg.Connection
) -> None:
    campaign = await client.create(hold_seconds=1, offers=[{"sku": "phone", "price": 5000, "stock": 1}])
    late = (await client.reserve(campaign, "late")).body
    payment = (await client.pay(late["id"], "late")).body
    await client.in_state(late["id"], "late", "expired")
    quick = (await client.reserve(campaign, "quick")).body
    await client.settle_payment((await client.pay(quick["id"], "quick")).body["payment_id"])
    for _ in range(3):
        assert (await client.settle_payment(payment["payment_id"])).body == {"webhook_status": 200}
    assert (await client.reservation(late["id"], "late"))["state"] == "refunded"

    async def refunds() -> list[tuple[object, ...]]:
        return book_connection.execute(
            "SELECT payment_id, amount, currency, status, reason FROM refunds WHERE reservation_id = %s",
            [late["id"]],
        ).fetchall()

    once = [(payment["payment_id"], 5000, "CNY", "succeeded", "paid_after_end")]
    assert await eventually(refunds, lambda found: found == once) == once
    assert (await client.audit(campaign))["phone"]["sold"] == 1


async def test_a_late_payment_takes_the_stock_again_if_every_limit_allows(client: Client) -> None:
    campaign = await client.create(hold_seconds=1, per_user=1)
    held = (await client.reserve(campaign, "late")).body
    payment = (await client.pay(held["id"], "late")).body
    await client.in_state(held["id"], "late", "expired")
    await client.settle_payment(payment["payment_id"])
    assert (await client.reservation(held["id"], "late"))["state"] == "confirmed"
    assert (await client.audit(campaign))["phone"]["sold"] == 1
    # The quota is taken again too.
    assert (await client.reserve(campaign, "late")).code == "quota_exceeded"


async def test_a_late_payment_beyond_a_quota_is_refunded(client: Client) -> None:
    campaign = await client.create(hold_seconds=1, per_user=1)
    held = (await client.reserve(campaign, "twice")).body
    payment = (await client.pay(held["id"], "twice")).body
    await client.in_state(held["id"], "twice", "expired")
    assert (await client.reserve(campaign, "twice")).status == 201
    await client.settle_payment(payment["payment_id"])
    assert (await client.reservation(held["id"], "twice"))["state"] == "refunded"
    await client.audit(campaign)


async def test_expired_stock_goes_back_on_sale(client: Client) -> None:
    campaign = await client.create(hold_seconds=1, offers=[{"sku": "phone", "price": 1, "stock": 1}])
    first = (await client.reserve(campaign, "first")).body
    assert (await client.reserve(campaign, "second")).code == "sold_out"
    await client.in_state(first["id"], "first", "expired")
    assert (await client.reserve(campaign, "second")).status == 201
    answer = await client.pay(first["id"], "first")
    assert (answer.status, answer.code) == (409, "payment_window_closed")


async def test_a_shopper_becomes_a_row(client: Client, book_connection: psycopg.Connection) -> None:
    """Reserve, pay, and be found in PostgreSQL with all that fulfilment needs."""
    campaign = await client.create(title="Sale")
    held = (await client.reserve(campaign, "ann", quantity=2)).body
    assert held["price"]["total"] == 10_000
    assert held["due"]["amount"] == 10_000
    payment = (await client.pay(held["id"], "ann")).body
    assert payment["status"] == "pending"
    assert (await client.pay(held["id"], "ann")).body == payment
    assert (await client.settle_payment(payment["payment_id"])).body == {"webhook_status": 200}
    assert (await client.reservation(held["id"], "ann"))["state"] == "confirmed"
    assert (await client.pay(held["id"], "ann")).body["status"] == "succeeded"

    async def order() -> tuple[object, ...] | None:
        return book_connection.execute(
            "SELECT campaign, kind, sku, user_id, quantity, state, version, currency, total, paid, lines"
            " FROM orders WHERE reservation_id = %s",
            [held["id"]],
        ).fetchone()

    found = await eventually(order, lambda row: row is not None and row[5] == "confirmed")
    lines = [{"sku": "phone", "quantity": 2}]
    assert found == (
        campaign, "flash_sale", "phone", "ann", 2, "confirmed", 3, "CNY", 10_000, 10_000, lines,
    )  # fmt: skip
    events = book_connection.execute(
        "SELECT version, type FROM order_events WHERE reservation_id = %s ORDER BY version", [held["id"]]
    ).fetchall()
    assert events == [(1, "reserved"), (2, "payment_requested"), (3, "payment_succeeded")]
    await client.audit(campaign)


async def test_cancel_frees_the_unit_once(client: Client) -> None:
    campaign = await client.create(per_user=1, offers=[{"sku": "phone", "price": 1, "stock": 1}])
    held = (await client.reserve(campaign, "ann")).body
    path = f"/v1/reservations/{held['id']}"
    answers = await asyncio.gather(*(client.call("DELETE", path, user="ann") for _ in range(20)))
    assert {(answer.status, answer.body["state"]) for answer in answers} == {(200, "cancelled")}
    assert {answer.body["version"] for answer in answers} == {2}
    assert (await client.audit(campaign))["phone"]["available"] == 1
    again = await asyncio.gather(*(client.reserve(campaign, user) for user in ("ann", "bob")))
    assert sorted(answer.status for answer in again) == [201, 409]


async def test_restocking_while_it_sells_is_exact(client: Client) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 1, "stock": 50}])
    stock = f"/v1/campaigns/{campaign}/offers/phone/stock"
    buying = [client.reserve(campaign, f"b{i}") for i in range(300)]
    adding = [client.call("POST", stock, service=True, json_body={"delta": 1}) for _ in range(50)]
    answers = await asyncio.gather(*buying, *adding)
    assert {answer.status for answer in answers[300:]} == {200}
    more = await asyncio.gather(*(client.reserve(campaign, f"c{i}") for i in range(100)))
    granted = sum(answer.status == 201 for answer in [*answers[:300], *more])
    assert granted == 100
    below = await client.call("POST", stock, service=True, json_body={"delta": -1})
    assert (below.status, below.code) == (409, "wrong_state")
    offers = await client.audit(campaign)
    assert offers["phone"] == {"sku": "phone", "stock": 100, "held": 100, "sold": 0, "available": 0}


async def test_every_process_obeys_at_once(client: Client) -> None:
    """Paused, resumed and closed for the very next request, whichever process it meets."""
    campaign = await client.create()
    path = f"/v1/campaigns/{campaign}/actions"
    for action, outcome in (("pause", "paused"), ("resume", None), ("close", "ended")):
        assert (await client.call("POST", path, service=True, json_body={"action": action})).status == 200
        answers = await asyncio.gather(*(client.reserve(campaign, f"{action}-{i}") for i in range(20)))
        assert {answer.code for answer in answers} == {outcome}
    phase = (await client.call("GET", f"/v1/campaigns/{campaign}")).body["phase"]
    assert phase in {"open", "closed"}  # up to a second old

    async def shown() -> list[str]:
        return [(await client.call("GET", f"/v1/campaigns/{campaign}")).body["phase"] for _ in range(10)]

    await eventually(shown, lambda phases: set(phases) == {"closed"}, 1.5)
    resumed = await client.call("POST", path, service=True, json_body={"action": "resume"})
    assert (resumed.status, resumed.code) == (409, "wrong_state")


async def test_a_change_holds_for_the_very_next_request(client: Client) -> None:
    campaign = await client.create(per_user=5)
    document = (await client.call("GET", f"/v1/campaigns/{campaign}")).body
    for name in ("phase", "server_time"):
        del document[name]
    document["offers"] = [{"sku": "phone", "title": "Phone", "price": 7000, "stock": 100}]
    document["per_user"] = 1
    changed = await client.call("PUT", f"/v1/campaigns/{campaign}", service=True, json_body=document)
    assert changed.status == 200
    answers = await asyncio.gather(*(client.reserve(campaign, f"u{i}") for i in range(20)))
    assert {answer.body["price"]["unit"] for answer in answers} == {7000}
    again = await asyncio.gather(*(client.reserve(campaign, f"u{i}") for i in range(20)))
    assert {answer.code for answer in again} == {"quota_exceeded"}


async def test_refusals_through_http_come_in_the_documented_order(client: Client) -> None:
    now = datetime.now(UTC)

    def at(hours: int) -> str:
        return (now + timedelta(hours=hours)).isoformat()

    unknown = await client.reserve("no-such-campaign", "ann", sku="nothing")
    assert (unknown.status, unknown.code) == (404, "campaign_not_found")
    over = await client.create(opens_at=at(-2), closes_at=at(-1), tiers=["gold"])
    missing = await client.reserve(over, "ann", sku="nothing")
    assert (missing.status, missing.code) == (404, "offer_not_found")
    ended = await client.reserve(over, "ann")
    assert (ended.status, ended.code) == (410, "ended")
    early = await client.create(opens_at=at(1), closes_at=at(2), tiers=["gold"])
    await client.call("POST", f"/v1/campaigns/{early}/actions", service=True, json_body={"action": "pause"})
    not_started = await client.reserve(early, "ann")
    assert (not_started.status, not_started.code) == (409, "not_started")
    assert datetime.fromisoformat(not_started.body["opens_at"]) - now < timedelta(hours=1, seconds=1)
    assert 3500 < int(not_started.headers["Retry-After"]) == not_started.body["retry_after_s"] <= 3600
    members = await client.create(
        tiers=["gold"], per_user=1, offers=[{"sku": "phone", "price": 1, "stock": 0}]
    )
    actions = f"/v1/campaigns/{members}/actions"
    await client.call("POST", actions, service=True, json_body={"action": "pause"})
    paused = await client.reserve(members, "ann")
    assert (paused.status, paused.code) == (409, "paused")
    await client.call("POST", actions, service=True, json_body={"action": "resume"})
    outsider = await client.reserve(members, "ann", quantity=2)
    assert (outsider.status, outsider.code) == (403, "not_eligible")
    public = await client.create(per_user=1, offers=[{"sku": "phone", "price": 1, "stock": 0}])
    greedy = await client.reserve(public, "ann", quantity=2)
    assert (greedy.status, greedy.code) == (409, "quota_exceeded")
    sold_out = await client.reserve(public, "ann")
    assert (sold_out.status, sold_out.code) == (409, "sold_out")


async def test_metrics_are_one_truth_over_all_processes(client: Client) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 1, "stock": 30}])
    await asyncio.gather(*(client.reserve(campaign, f"m{i}") for i in range(40)))

    async def counted() -> dict[str, float]:
        text = (await client.call("GET", "/metrics")).body.decode()
        pattern = (
            rf'doorbuster_reservations_total{{campaign="{campaign}",kind="flash_sale",outcome="(\w+)"}} (\S+)'
        )
        counts = {outcome: float(count) for outcome, count in re.findall(pattern, text)}
        return {outcome: count for outcome, count in counts.items() if count}

    for _ in range(10):
        assert await counted() == {"held": 30.0, "sold_out": 10.0}
    text = (await client.call("GET", "/metrics")).body.decode()
    for name in (
        "doorbuster_request_duration_seconds_bucket",
        "doorbuster_outbox_events ",
        "doorbuster_outbox_oldest_seconds ",
        "doorbuster_settlement_lag_seconds_bucket",
        f'doorbuster_conservation_drift{{campaign="{campaign}"}} 0.0',
    ):
        assert name in text
