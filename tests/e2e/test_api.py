"""The contract's shapes, and that the API's own description is true."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest.mock import MagicMock

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import Parts, build
from gateway.openapi import describe
from gateway.problems import CODES
from tests.e2e.wire import Scene, assert_problem, set_scene
from tests.stack import SERVICE_KEY, Answer, Client, Stack, eventually, sale, token

pytestmark = pytest.mark.usefixtures("clean_log")

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PRICE_OF_ONE = {
    "currency": "CNY",
    "unit": 5000,
    "total": 5000,
    "deposit": 0,
    "deposit_worth": 0,
    "discounts": [],
    "balance": 0,
}


def at(hours: float) -> str:
    """An instant so far from now."""
    moment = datetime.now(UTC) + timedelta(hours=hours)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def put(client: Client, document: dict[str, Any]) -> Answer:
    return await client.call("PUT", f"/v1/campaigns/{document['id']}", service=True, json_body=document)


async def shown(client: Client, campaign: str) -> Any:
    answer = await client.call("GET", f"/v1/campaigns/{campaign}")
    assert answer.status == 200, answer
    return answer.body


# Campaigns


async def test_a_campaign_is_its_document_and_what_is_true_now(client: Client) -> None:
    offers: list[dict[str, Any]] = [
        {
            "sku": "phone-16",
            "title": "Phone 16",
            "price": 599_900,
            "list_price": 649_900,
            "stock": 3,
            "per_user": 2,
        },
        {"sku": "case", "price": 100, "stock": 0},
    ]
    times = {"warm_up_at": at(-2), "opens_at": at(-1), "closes_at": at(1)}
    document = sale(
        title="Singles' Day phones 手机", tiers=["gold", "diamond"], per_user=3, hold_seconds=60, **times
    )
    document["offers"] = offers
    created = await put(client, document)
    now = {"phase": "open", "server_time": created.body["server_time"]}
    levels = [{"remaining": 3, "sold_out": False}, {"remaining": 0, "sold_out": True}]
    expected = document | now | {"offers": [one | level for one, level in zip(offers, levels, strict=True)]}
    assert (created.status, created.body) == (201, expected)
    assert INSTANT.fullmatch(created.body["server_time"])
    assert abs(datetime.fromisoformat(created.body["server_time"]) - datetime.now(UTC)) < timedelta(seconds=2)
    one = await shown(client, document["id"])
    assert one | {"server_time": ""} == expected | {"server_time": ""}

    async def listed() -> list[Any]:
        answer = await client.call("GET", "/v1/campaigns")
        assert answer.body.keys() == {"campaigns"}
        return [found for found in answer.body["campaigns"] if found["id"] == document["id"]]

    (listed_one,) = await eventually(listed, bool, 1.5)
    assert listed_one | {"server_time": ""} == one | {"server_time": ""}


async def test_what_a_merchant_leaves_out_is_said_or_left_out(client: Client) -> None:
    campaign = await client.create()
    found = await shown(client, campaign)
    assert found.keys() == {
        "id", "kind", "currency", "opens_at", "closes_at", "hold_seconds", "offers", "phase", "server_time"
    }  # fmt: skip
    assert found["hold_seconds"] == 900
    assert found["offers"][0].keys() == {"sku", "title", "price", "stock", "remaining", "sold_out"}


@pytest.mark.parametrize(
    ("times", "action", "phase"),
    [
        ({"opens_at": at(1), "closes_at": at(2)}, None, "scheduled"),
        ({"warm_up_at": at(1), "opens_at": at(2), "closes_at": at(3)}, None, "scheduled"),
        ({"warm_up_at": at(-1), "opens_at": at(2), "closes_at": at(3)}, None, "warm_up"),
        ({"opens_at": at(-1), "closes_at": at(1)}, None, "open"),
        ({"opens_at": at(-2), "closes_at": at(-1)}, None, "closed"),
        ({}, "pause", "paused"),
        ({}, "resume", "open"),
        ({}, "close", "closed"),
        ({"opens_at": at(-2), "closes_at": at(-1)}, "pause", "closed"),
    ],
)
async def test_a_campaign_is_in_one_phase(
    client: Client, times: dict[str, str], action: str | None, phase: str
) -> None:
    campaign = await client.create(**times)
    if action is not None:
        path = f"/v1/campaigns/{campaign}/actions"
        acted = await client.call("POST", path, service=True, json_body={"action": action})
        assert (acted.status, acted.body["phase"]) == (200, phase)

    async def phases() -> set[str]:
        return {(await shown(client, campaign))["phase"] for _ in range(4)}

    await eventually(phases, lambda found: found == {phase}, 1.5)


async def test_a_campaign_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    campaign = await client.create()
    path = f"/v1/campaigns/{campaign}"
    first = await client.call("GET", path)
    tag = first.headers["ETag"]
    strong = tag.removeprefix("W/")
    for known in (tag, strong, f'"other", {tag}', f"{tag},{strong}", "*"):
        again = await client.call("GET", path, headers={"If-None-Match": known})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag), known
    for unknown in ('"other"', strong.strip('"'), "", tag[:-2]):
        again = await client.call("GET", path, headers={"If-None-Match": unknown})
        assert (again.status, again.body["id"]) == (200, campaign), unknown
    async with client.session.head(client.url + path) as head:
        assert (head.status, head.headers["ETag"], await head.read()) == (200, tag, b"")
    await client.reserve(campaign, "ann")

    async def fetch() -> set[int]:
        """From both processes, surely."""
        tries = (client.call("GET", path, headers={"If-None-Match": tag}) for _ in range(6))
        return {answer.status for answer in await asyncio.gather(*tries)}

    await eventually(fetch, lambda statuses: statuses == {200}, 1.5)


async def test_the_list_of_campaigns_has_a_tag_too(client: Client) -> None:
    await client.create()

    async def known_to_both() -> bool:
        tag = (await client.call("GET", "/v1/campaigns")).headers["ETag"]
        known = {"If-None-Match": tag}
        tries = [await client.call("GET", "/v1/campaigns", headers=known) for _ in range(6)]
        return {answer.status for answer in tries} == {304}

    await eventually(known_to_both, bool, 3)


async def test_to_put_the_same_again_changes_nothing(client: Client) -> None:
    document = sale(opens_at=at(-1), closes_at=at(1))
    first = await put(client, document)
    again = [await put(client, document) for _ in range(3)]
    assert [first.status, *(answer.status for answer in again)] == [201, 200, 200, 200]
    assert all(answer.body | {"server_time": ""} == first.body | {"server_time": ""} for answer in again)
    path = f"/v1/campaigns/{document['id']}"
    nameless = {name: value for name, value in document.items() if name != "id"}
    assert (await client.call("PUT", path, service=True, json_body=nameless)).status == 200


async def test_one_of_many_who_create_a_campaign_creates_it(client: Client) -> None:
    document = sale()
    statuses = [answer.status for answer in await asyncio.gather(*(put(client, document) for _ in range(10)))]
    assert statuses.count(201) == 1
    assert set(statuses) == {200, 201}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"currency": "EUR"}, "currency"),
        ({"kind": "trade_in", "entitlement": {"grants": 1}}, "kind"),
        ({"offers": [{"sku": "phone", "title": "Phone", "price": 5000, "stock": 2}]}, "offers[0].stock"),
        ({"offers": [{"sku": "phone", "title": "Phone", "price": 1, "stock": 0}]}, "offers[0].stock"),
        ({"offers": [{"sku": "other", "price": 1, "stock": 1}]}, "offers"),
        ({"title": "Renamed", "currency": "USD"}, "currency"),
    ],
    ids=lambda value: f"{value!s:.50}",
)
async def test_what_cannot_change_does_not_and_takes_nothing_with_it(
    client: Client, change: dict[str, Any], path: str
) -> None:
    document = sale()
    assert (await put(client, document)).status == 201
    assert (await client.reserve(document["id"], "ann", quantity=3)).status == 201
    before = (await put(client, document)).body
    assert_problem(await put(client, document | change), "invalid_request", path)
    after = await put(client, document)
    assert after.body | {"server_time": ""} == before | {"server_time": ""}
    offers = await client.audit(document["id"])
    assert offers == {"phone": {"sku": "phone", "stock": 100, "held": 3, "sold": 0, "available": 97}}


async def test_an_offer_may_be_added_changed_and_taken_off(client: Client) -> None:
    document = sale()
    await put(client, document)
    phone = document["offers"][0]
    both = [phone | {"price": 6000, "stock": 7}, {"sku": "case", "price": 1, "stock": 1}]
    changed = await put(client, document | {"offers": both})
    assert changed.status == 200
    assert [(one["sku"], one["price"], one["remaining"]) for one in changed.body["offers"]] == [
        ("phone", 6000, 7),
        ("case", 1, 1),
    ]
    assert (await put(client, document | {"offers": both[1:]})).status == 200
    assert_problem(await client.reserve(document["id"], "ann"), "offer_not_found")
    assert (await client.reserve(document["id"], "ann", sku="case")).status == 201


async def test_stock_moves_by_a_delta_and_never_below_what_is_taken(client: Client) -> None:
    campaign = await client.create()
    await client.reserve(campaign, "ann", quantity=10)
    path = f"/v1/campaigns/{campaign}/offers/phone/stock"

    async def move(delta: int) -> Answer:
        return await client.call("POST", path, service=True, json_body={"delta": delta})

    for delta, stock in ((5, 105), (0, 105), (-95, 10)):
        moved = await move(delta)
        assert moved.status == 200
        assert (moved.body["sku"], moved.body["stock"], moved.body["remaining"]) == (
            "phone",
            stock,
            stock - 10,
        )
    assert moved.body["sold_out"] is True
    for delta in (-1, -10, -11, -(10**9)):
        assert_problem(await move(delta), "wrong_state")
    assert_problem(await move(10**9), "invalid_request", "delta")
    assert (await client.audit(campaign))["phone"]["stock"] == 10
    nowhere = path.replace("phone", "nothing")
    answer = await client.call("POST", nowhere, service=True, json_body={"delta": 1})
    assert_problem(answer, "offer_not_found")


async def test_an_action_may_be_repeated_and_to_close_is_for_good(client: Client) -> None:
    campaign = await client.create()

    async def act(action: str) -> Answer:
        path = f"/v1/campaigns/{campaign}/actions"
        return await client.call("POST", path, service=True, json_body={"action": action})

    for action, phase in (("pause", "paused"), ("resume", "open"), ("close", "closed")):
        for _ in range(2):
            answer = await act(action)
            assert (answer.status, answer.body["id"], answer.body["phase"]) == (200, campaign, phase)
    for action in ("pause", "resume"):
        assert_problem(await act(action), "wrong_state")
    assert_problem(await client.reserve(campaign, "ann"), "ended")


async def test_an_audit_is_as_documented(client: Client, untouched: Scene) -> None:
    answer = await client.call("GET", f"/v1/campaigns/{untouched.campaign}/audit", service=True)
    offer = {"sku": "phone", "stock": 100, "held": 1, "sold": 0, "available": 99}
    one = {"id": untouched.campaign, "offers": [offer], "violations": []}
    assert answer.body == {"ok": True, "campaigns": [one]}


async def test_hundreds_of_campaigns_are_listed_and_measured(client: Client) -> None:
    """More than there are connections to the store."""
    for _ in range(6):
        made = await asyncio.gather(*(client.create() for _ in range(20)))

    async def listed() -> list[set[str]]:
        answers = [await client.call("GET", "/v1/campaigns") for _ in range(6)]
        assert {answer.status for answer in answers} == {200}
        return [{one["id"] for one in answer.body["campaigns"]} for answer in answers]

    found = await eventually(listed, lambda found: all(set(made) <= one for one in found))
    assert len(found[0]) >= 120
    text = (await client.call("GET", "/metrics")).body.decode()
    assert "doorbuster_store_up 1.0" in text
    assert all(f'doorbuster_conservation_drift{{campaign="{campaign}"}} 0.0' in text for campaign in made)


async def test_hundreds_of_shoppers_may_look_at_once(client: Client) -> None:
    await client.reserve(await client.create(), "ann")
    looks = (client.call("GET", "/v1/reservations", user="ann") for _ in range(400))
    assert {answer.status for answer in await asyncio.gather(*looks)} == {200}


# Reservations


async def test_a_reservation_is_exactly_as_documented(client: Client) -> None:
    campaign = await client.create(hold_seconds=60)
    answer = await client.reserve(campaign, "ann", key="one")
    held = answer.body
    assert (answer.status, answer.headers["Location"]) == (201, f"/v1/reservations/{held['id']}")
    assert "Idempotent-Replayed" not in answer.headers
    assert answer.headers["Content-Type"].startswith("application/json")
    by = held["due"]["by"]
    assert held == {
        "id": held["id"],
        "campaign": campaign,
        "kind": "flash_sale",
        "sku": "phone",
        "quantity": 1,
        "user": "ann",
        "state": "held",
        "version": 1,
        "due": {"stage": "full", "amount": 5000, "currency": "CNY", "by": by},
        "price": PRICE_OF_ONE,
        "created_at": held["created_at"],
        "updated_at": held["created_at"],
    }
    assert all(INSTANT.fullmatch(instant) for instant in (by, held["created_at"]))
    hold = datetime.fromisoformat(by) - datetime.fromisoformat(held["created_at"])
    assert hold == timedelta(seconds=60)
    assert (await client.call("GET", answer.headers["Location"], user="ann")).body == held
    again = await client.reserve(campaign, "ann", key="one")
    assert (again.status, again.body, again.headers["Idempotent-Replayed"]) == (201, held, "true")
    assert again.headers["Location"] == answer.headers["Location"]
    explicit = await client.reserve(campaign, "ann", key="one", quantity=1)
    assert (explicit.status, explicit.body) == (201, held), "one unit is what is meant when nothing is said"
    assert_problem(await client.reserve(campaign, "ann", key="one", quantity=2), "idempotency_mismatch")
    other = await client.reserve(campaign, "bob", key="one")
    assert (other.status, other.headers.get("Idempotent-Replayed")) == (201, None), "a key is its user's own"


async def test_a_replay_shows_what_has_become_of_it(client: Client) -> None:
    campaign = await client.create()
    held = (await client.reserve(campaign, "ann", key="one")).body
    cancelled = await client.call("DELETE", f"/v1/reservations/{held['id']}", user="ann")
    assert (cancelled.status, cancelled.body["state"], cancelled.body["due"]) == (200, "cancelled", None)
    again = await client.reserve(campaign, "ann", key="one")
    assert (again.status, again.body, again.headers["Idempotent-Replayed"]) == (201, cancelled.body, "true")
    unchanged = await client.call("DELETE", f"/v1/reservations/{held['id']}", user="ann")
    assert (unchanged.status, unchanged.body) == (200, cancelled.body)


async def test_a_payment_is_exactly_as_documented(client: Client) -> None:
    held = (await client.reserve(await client.create(), "ann")).body
    answer = await client.pay(held["id"], "ann")
    assert answer.status == 200
    assert answer.body == {
        "payment_id": f"{held['id']}.full",
        "stage": "full",
        "amount": 5000,
        "currency": "CNY",
        "pay_url": f"{client.url}/sandbox/payments/{held['id']}.full",
        "status": "pending",
    }
    for stage in ("deposit", "balance"):
        assert_problem(await client.pay(held["id"], "ann", stage), "wrong_state")
    paid = await client.call(
        "POST", answer.body["pay_url"].removeprefix(client.url), json_body={"outcome": "succeeded"}
    )
    assert paid.body == {"webhook_status": 200}
    confirmed = await client.reservation(held["id"], "ann")
    assert (confirmed["state"], confirmed["due"], confirmed["version"]) == ("confirmed", None, 3)
    assert_problem(await client.call("DELETE", f"/v1/reservations/{held['id']}", user="ann"), "wrong_state")


async def test_ones_own_reservations_come_newest_first_in_pages(client: Client) -> None:
    user = f"pager-{datetime.now(UTC).timestamp()}"
    here, there = await client.create(), await client.create()
    made = [(await client.reserve(campaign, user)).body for campaign in [here, there] * 4]

    async def page(query: str) -> tuple[list[str], str | None]:
        answer = await client.call("GET", f"/v1/reservations?{query}", user=user)
        assert answer.status == 200, answer
        assert answer.body.keys() == {"reservations", "next"}
        return [one["id"] for one in answer.body["reservations"]], answer.body["next"]

    newest = [one["id"] for one in sorted(made, key=lambda one: (one["created_at"], one["id"]), reverse=True)]
    assert await page("") == (newest, None)
    assert await page("limit=8") == (newest, None)
    assert await page("limit=7") == (newest[:7], newest[6])
    of_here = [one for one in newest if one.startswith(f"{here}.")]
    assert await page(f"campaign={here}") == (of_here, None)
    assert await page(f"campaign={here}&limit=3") == (of_here[:3], of_here[2])
    assert await page(f"campaign={here}&limit=3&after={of_here[2]}") == (of_here[3:], None)
    walked: list[str] = []
    after: str | None = ""
    while after is not None:
        found, after = await page("limit=3" + (f"&after={after}" if after else ""))
        walked += found
        if len(walked) == 3:  # what is new meanwhile comes before, and moves no page
            await client.reserve(here, user)
    assert walked == newest
    assert (await page(f"after={newest[-1]}")) == ([], None)


async def test_a_user_with_more_reservations_than_the_store_indexes_sees_them_all(client: Client) -> None:
    user, campaign = (
        f"hoarder-{datetime.now(UTC).timestamp()}",
        await client.create(offers=[{"sku": "phone", "price": 1, "stock": 1_000}]),
    )
    made = await asyncio.gather(*(client.reserve(campaign, user) for _ in range(150)))

    async def listed() -> list[str]:
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            query = f"limit=100&after={after}" if after else "limit=100"
            answer = await client.call("GET", f"/v1/reservations?{query}", user=user)
            found += [one["id"] for one in answer.body["reservations"]]
            after = answer.body["next"]
        return found

    found = await eventually(listed, lambda found: len(found) == 150)
    assert sorted(found) == sorted(answer.body["id"] for answer in made)


# Operators


async def test_health_and_readiness_are_plain_to_see(client: Client) -> None:
    assert (await client.call("GET", "/healthz")).body == {"status": "ok"}
    ready = await client.call("GET", "/readyz")
    assert (ready.status, ready.body) == (200, {"status": "ready", "parts": {"store": "ok", "book": "ok"}})
    metrics = await client.call("GET", "/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")


# The description


def test_the_description_is_valid_openapi_3_1() -> None:
    description = cast(Any, describe())
    validate(description)
    assert description["openapi"].startswith("3.1")
    codes = description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert set(codes) == set(CODES)


async def test_the_description_names_every_route_and_no_other(client: Client) -> None:
    app = build(Parts(**{name: MagicMock() for name in Parts.__slots__}))
    served = {
        (route.method.lower(), resource.canonical)
        for resource in app.router.resources()
        for route in resource
        if route.method not in {"*", "HEAD"}
    }
    described = (await client.call("GET", "/openapi.json")).body
    assert described == describe()
    assert {(method, path) for path, found in described["paths"].items() for method in found} == served


def ends(operation: Any) -> bool:
    """Whether the answer does: an event stream's does not, and test_streams.py looks at those."""
    answer = operation.definition.raw["responses"].get("200", {})
    return "text/event-stream" not in answer.get("content", {})


FOUND = schemathesis.openapi.from_dict(cast(Any, describe())).get_all_operations()
OPERATIONS = [operation for operation in (found.ok() for found in FOUND) if ends(operation)]
WITH_BODY = [one for one in OPERATIONS if one.body]
EXAMPLES = settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""The same requests in every run."""
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def toy(up: Stack) -> Scene:
    """A scene that may be played with."""

    async def set_it() -> Scene:
        async with aiohttp.ClientSession() as session:
            return await set_scene(Client(up.url, session))

    return asyncio.run(set_it())


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        *(pytest.param(one, GenerationMode.POSITIVE, id=f"{one.label} as told") for one in OPERATIONS),
        *(pytest.param(one, GenerationMode.NEGATIVE, id=f"{one.label} amiss") for one in WITH_BODY),
    ],
)
def test_every_answer_is_as_described(up: Stack, toy: Scene, operation: Any, mode: GenerationMode) -> None:
    """Whether what is sent is as described, or is not."""
    owners = [name for choice in operation.definition.raw["security"] for name in choice]
    key = {"user": token("ann"), "service": SERVICE_KEY}.get(owners[0] if owners else "")
    sent = {"Authorization": f"Bearer {key}"} if key else {}
    names = {"campaign": toy.campaign, "sku": "phone", "reservation": toy.held, "payment": toy.payment}
    names["order"] = "order-1"
    known = {one.name: names[one.name] for one in operation.path_parameters}

    @EXAMPLES
    @given(case=operation.as_strategy(mode))
    def try_it(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE:
            case.path_parameters.update(known)
        answer = case.call(base_url=up.url, headers=sent)
        case.validate_response(answer, checks=CHECKS)

    try_it()
