"""What happens at the same instant: exactly one of the two, and the counters know which."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.stack import Answer, Client, eventually, in_phase, presale, trade_in

ROUNDS = 40
SURELY_FIRST, SURELY_LAST = range(2), range(ROUNDS - 2, ROUNDS)
"""Rounds that are no race: one side is first for certain. So each is seen to win, however the others end."""


def offer(**changes: Any) -> dict[str, Any]:
    return {"sku": "phone", "price": 5000, "stock": 10_000, "deposit": 100, "deposit_worth": 200, **changes}


async def create(client: Client, **changes: Any) -> dict[str, Any]:
    document = presale(**{"offers": [offer()], **changes})
    assert (await client.put(document)).status == 201
    return document


async def with_deposit(client: Client, campaign: str, user: str, **body: Any) -> str:
    held = (await client.reserve(campaign, user, **body)).body
    assert (await client.paid(held["id"], user, "deposit"))["state"] == "deposit_paid"
    return str(held["id"])


async def test_amendments_race_cancels(client: Client) -> None:
    document = await create(client, per_user=5)

    async def race(number: int) -> str:
        user = f"u{number}"
        made = await with_deposit(client, document["id"], user, quantity=2)
        wanted = 1 + 3 * (number % 2)
        amend, cancel, again = (
            client.amend(made, user, wanted),
            client.cancel(made, user),
            client.amend(made, user, 3),
        )
        if number in SURELY_FIRST:
            amended, cancelled, other = await amend, await cancel, await again
        elif number in SURELY_LAST:
            cancelled, amended, other = await cancel, await amend, await again
        else:
            amended, cancelled, other = await asyncio.gather(amend, cancel, again)
        assert cancelled.status == 200
        assert {amended.status, other.status} <= {200, 409}
        found = await client.reservation(made, user)
        assert found["state"] == "cancelled"
        return f"{amended.status}/{other.status}"

    became = Counter(await asyncio.gather(*(race(number) for number in range(ROUNDS))))
    assert len(became) > 1, f"both sides must have won some: {became}"
    offers = await client.audit(document["id"])
    assert offers["phone"]["available"] == 10_000


async def test_amendments_race_the_end_of_the_hold(client: Client) -> None:
    document = await create(client, hold_seconds=2, per_user=5)

    async def race(number: int) -> str:
        user = f"u{number}"
        held = (await client.reserve(document["id"], user)).body
        if number in SURELY_LAST:
            await client.in_state(held["id"], user, "expired")
        elif number not in SURELY_FIRST:
            due = datetime.fromisoformat(held["due"]["by"]) - datetime.now(UTC)
            await asyncio.sleep(max(0.0, due.total_seconds() + (number - ROUNDS / 2) / 200))
        amended = await client.amend(held["id"], user, 3)
        assert amended.status == 200 or amended.code == "wrong_state"
        found = await client.in_state(held["id"], user, "expired")
        assert found["quantity"] == (3 if amended.status == 200 else 1)
        return str(amended.status)

    became = Counter(await asyncio.gather(*(race(number) for number in range(ROUNDS))))
    assert set(became) == {"200", "409"}, became
    offers = await client.audit(document["id"])
    assert offers["phone"]["available"] == 10_000


async def test_differences_paid_race_their_deadline(client: Client) -> None:
    document = await create(client, hold_seconds=2)

    async def fallen_back(made: str, user: str) -> Any:
        """The reservation, once no difference is due any more."""
        return await eventually(
            lambda: client.reservation(made, user), lambda found: found["due"]["stage"] == "balance"
        )

    async def race(number: int) -> int:
        user = f"u{number}"
        made = await with_deposit(client, document["id"], user)
        amended = (await client.amend(made, user, 3)).body
        payment = (await client.pay(made, user, "deposit")).body
        if number in SURELY_LAST:
            await fallen_back(made, user)
        elif number not in SURELY_FIRST:
            due = datetime.fromisoformat(amended["due"]["by"]) - datetime.now(UTC)
            await asyncio.sleep(max(0.0, due.total_seconds() + (number - ROUNDS / 2) / 200))
        await client.settle_payment(payment["payment_id"])
        settled = await fallen_back(made, user)
        assert settled["state"] == "deposit_paid"
        return int(settled["quantity"])

    became = Counter(await asyncio.gather(*(race(number) for number in range(ROUNDS))))
    assert set(became) == {1, 3}, became
    offers = await client.audit(document["id"])
    assert offers["phone"]["held"] == became[1] + 3 * became[3]


async def test_balances_paid_race_the_deadline(client: Client) -> None:
    """Late or not, who paid has the goods or the money back, and nobody has both."""
    document = await create(client, offers=[offer(stock=ROUNDS)])
    users = [f"u{number}" for number in range(ROUNDS)]
    ids = dict(
        zip(
            users,
            await asyncio.gather(*(with_deposit(client, document["id"], u) for u in users)),
            strict=True,
        )
    )
    closes_at = datetime.now(UTC) + timedelta(seconds=4)
    closing = in_phase(document, "balance") | {"balance_closes_at": closes_at.isoformat()}
    assert (await client.put(closing)).status == 200
    payments = {user: (await client.pay(ids[user], user, "balance")).body for user in users}

    async def race(number: int, user: str) -> None:
        due = (closes_at - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(0.0, due + (number - ROUNDS / 2) / 100))
        await client.settle_payment(payments[user]["payment_id"])

    await asyncio.gather(*(race(number, user) for number, user in enumerate(users)))
    states = Counter([(await client.reservation(ids[user], user))["state"] for user in users])
    assert states == {"confirmed": ROUNDS}, "there was stock for all, so even the late ones have it"
    offers = await client.audit(document["id"])
    assert offers["phone"]["sold"] == ROUNDS


async def test_trade_ins_race_the_cancel_of_their_order(client: Client) -> None:
    document = trade_in()
    assert (await client.put(document)).status == 201

    async def cancel(number: int, order: str) -> Answer:
        await asyncio.sleep(number % 4 / 50)  # it takes fewer steps, and would win every time
        return await client.cancel_order(order)

    async def race(number: int) -> str:
        user, order = f"u{number}", f"{document['id']}-{number}"
        await client.report(order, user, ("tv", 3000))
        take = client.reserve(document["id"], user, sku="soundbar", order_id=order)
        take_back, take_another = (
            cancel(number, order),
            client.reserve(document["id"], user, sku="soundbar", order_id=order),
        )
        if number in SURELY_FIRST:
            took, cancelled, also = await take, await take_back, await take_another
        elif number in SURELY_LAST:
            cancelled, took, also = await take_back, await take, await take_another
        else:
            took, cancelled, also = await asyncio.gather(take, take_back, take_another)
        assert cancelled.status == 200
        for one in (took, also):
            assert one.status == 201 or one.code == "not_eligible", one
            if one.status == 201:
                await client.in_state(one.body["id"], user, "cancelled")
        return f"{took.status}/{also.status}"

    became = Counter(await asyncio.gather(*(race(number) for number in range(ROUNDS))))
    assert len(became) > 1, f"both sides must have won some: {became}"
    offers = await client.audit(document["id"])
    assert offers["soundbar"]["available"] == 100


async def test_gifts_go_round_exactly_while_payers_come_and_go(client: Client) -> None:
    document = await create(client, offers=[offer(gifts=[{"sku": "earbuds", "first": 5}])])

    async def come(number: int) -> None:
        user = f"u{number}"
        made = await with_deposit(client, document["id"], user)
        if number % 3 == 0:
            assert (await client.cancel(made, user)).status == 200

    await asyncio.gather(*(come(number) for number in range(ROUNDS)))
    await asyncio.gather(*(with_deposit(client, document["id"], f"late-{n}") for n in range(10)))
    found = []
    for user in [*(f"u{number}" for number in range(ROUNDS)), *(f"late-{n}" for n in range(10))]:
        mine = (await client.call("GET", f"/v1/reservations?campaign={document['id']}", user=user)).body
        for one in mine["reservations"]:
            found += [line["sku"] for line in one.get("lines", []) if line.get("gift")]
    assert found == ["earbuds"] * 5
    await client.audit(document["id"])
