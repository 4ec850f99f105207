"""/metrics of every role: valid, as documented, moved by what happens, and right when processes die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from doorbuster.data_dir import STACK
from doorbuster.settings import Settings
from tests.documented import documented
from tests.e2e.test_up import children
from tests.servers import free_port, running
from tests.stack import COMMAND, Client, Stack, eventually

ROLES = ("gateway", "worker", "relay", "sweeper")
RESERVATIONS_ROUTE = "/v1/campaigns/{campaign}/reservations"
OTHERS = ("process_", "python_")
"""Of Prometheus' client itself."""


class Told(list[Sample]):
    """What was told in one answer."""

    def sum(self, name: str, **labels: str) -> float:
        return sum(one.value for one in self.of(name) if labels.items() <= one.labels.items())

    def of(self, name: str) -> list[Sample]:
        return [one for one in self if one.name == name]

    def __repr__(self) -> str:
        return f"{len(self)} samples"


def checked(text: str) -> Told:
    """What it says, which is what docs/metrics.md says that there is."""
    rows, told = documented(), Told()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        if family.name.startswith(OTHERS):
            continue
        row = rows[family.name + ("_total" if family.type == "counter" else "")]
        assert family.type == row.type, family.name
        assert family.documentation, family.name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == row.labels, sample
        series = [(one.name, json.dumps(one.labels, sort_keys=True)) for one in family.samples]
        assert len(set(series)) == len(series), family.name
        told += family.samples
    return told


async def scrape(client: Client, url: str = "") -> Told:
    async with client.session.get(f"{url or client.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return checked(await answer.text())


async def test_each_role_tells_of_itself_as_documented(client: Client, up: Stack, tmp_path: Path) -> None:
    settings = Settings(**json.loads((up.data_dir / STACK).read_text())["settings"])
    ports = {role: free_port() for role in ROLES}
    with ExitStack() as processes:
        for role, port in ports.items():
            command = [*COMMAND, role, "--port" if role == "gateway" else "--metrics-port", str(port)]
            log = tmp_path / f"{role}.log"
            processes.enter_context(running(command, log, environment=settings.environment()))
        for role, port in ports.items():
            tells_of_itself(role, await told_alone(client, f"http://127.0.0.1:{port}"))


async def told_alone(client: Client, url: str) -> Told:
    async def look() -> Told:
        try:
            return await scrape(client, url)
        except aiohttp.ClientConnectionError:
            return Told()

    def ready(told: Told) -> bool:
        signs = ("doorbuster_event_loop_lag_seconds_count", "doorbuster_gc_pause_seconds_count")
        return all(told.sum(name) > 0 for name in signs)

    found: Told = await eventually(look, ready, 60)
    return found


def tells_of_itself(role: str, told: Told) -> None:
    for name in ("doorbuster_event_loop_lag_seconds_count", "doorbuster_gc_pause_seconds_count"):
        assert {one.labels["role"] for one in told.of(name)} == {role}
    has_store, has_book = role != "worker", role != "relay"
    assert bool(told.sum("doorbuster_store_batch_commands_count", role=role)) == has_store
    assert bool(told.of("doorbuster_book_connections")) == has_book
    waits = {f"doorbuster_{name}" for name in ("refunds_pending", "notifications_pending", "dead_letters")}
    assert {name for name in waits if told.of(name)} == (waits if role == "worker" else set())
    answers = told.of("doorbuster_request_duration_seconds_count")
    reserving = {
        one.labels["status"]: one.value for one in answers if one.labels["route"] == RESERVATIONS_ROUTE
    }
    # Before anybody has asked: what fails at once must have risen.
    assert reserving == (dict.fromkeys(("201", "409", "500", "503"), 0) if role == "gateway" else {})


async def test_a_sale_moves_the_metrics_of_every_hop(client: Client) -> None:
    campaign = await client.create(
        hold_seconds=1, per_user=2, offers=[{"sku": "phone", "price": 5, "stock": 3}]
    )

    def asked(told: Told) -> list[float]:
        series = told.of("doorbuster_reservations_total")
        return [one.value for one in series if one.labels["campaign"] == campaign]

    # Counted from nothing, before anybody has asked, by whichever process has heard of it.
    await eventually(lambda: scrape(client), lambda told: len(asked(told)) > 1 and not any(asked(told)))
    ann = await client.reserve(campaign, "ann", key="once")
    assert (await client.reserve(campaign, "ann", key="once")).headers["Idempotent-Replayed"] == "true"
    await client.reserve(campaign, "bob", quantity=2)
    assert (await client.reserve(campaign, "cat")).code == "sold_out"
    assert (await client.reserve(campaign, "dan", quantity=3)).code == "quota_exceeded"
    await client.paid(ann.body["id"], "ann")

    def settled(told: Told, event: str) -> float:
        labels = {"campaign": campaign, "kind": "flash_sale", "type": event}
        return told.sum("doorbuster_settled_events_total", **labels)

    told: Told = await eventually(lambda: scrape(client), lambda told: settled(told, "expired") == 1)
    outcomes = {
        one.labels["outcome"]: one.value
        for one in told.of("doorbuster_reservations_total")
        if one.labels["campaign"] == campaign and one.value
    }
    assert outcomes == {"held": 2, "sold_out": 1, "quota_exceeded": 1}
    assert told.sum("doorbuster_replays_total", campaign=campaign) == 1
    assert settled(told, "reserved") == 2
    assert settled(told, "payment_succeeded") == 1
    assert told.sum("doorbuster_settled_payments_total", campaign=campaign, stage="full") == 1
    assert told.sum("doorbuster_offer_stock_units", campaign=campaign, sku="phone") == 3
    assert told.sum("doorbuster_units", campaign=campaign, state="confirmed") == 1
    assert told.sum("doorbuster_conservation_drift", campaign=campaign) == 0
    opens = told.sum("doorbuster_campaign_opens_timestamp_seconds", campaign=campaign)
    closes = told.sum("doorbuster_campaign_closes_timestamp_seconds", campaign=campaign)
    assert closes - opens == pytest.approx(2 * 3600, abs=1)
    for name, labels in {
        "doorbuster_request_duration_seconds_count": {"route": RESERVATIONS_ROUTE},
        "doorbuster_store_command_duration_seconds_count": {"role": "gateway", "command": "reserve"},
        "doorbuster_reserve_group_reservations_count": {},
        "doorbuster_relayed_events_total": {},
        "doorbuster_relay_batch_events_count": {},
        "doorbuster_publish_duration_seconds_count": {},
        "doorbuster_broker_connections_total": {"outcome": "opened"},
        "doorbuster_settle_duration_seconds_count": {},
        "doorbuster_settlement_lag_seconds_count": {},
        "doorbuster_book_query_duration_seconds_count": {"outcome": "ok"},
        "doorbuster_book_connections": {"role": "worker"},
        "doorbuster_payment_notices_total": {"type": "payment.succeeded", "outcome": "taken"},
        "doorbuster_lapsed_total": {},
    }.items():
        assert told.sum(name, **labels) > 0, (name, labels)
    for role in ROLES:
        assert told.sum("doorbuster_event_loop_lag_seconds_count", role=role) > 0
        assert told.sum("doorbuster_gc_pause_seconds_count", role=role) > 0
    assert {one.name for one in told} >= {
        f"doorbuster_{name}" for name in ("dead_letters", "refunds_pending")
    }


async def test_what_is_under_way_is_told(client: Client) -> None:
    told = await scrape(client)
    assert told.sum("doorbuster_requests_in_progress") >= 0
    assert told.sum("doorbuster_store_up") == 1


@pytest.fixture
def files(up: Stack) -> Path:
    runtime = json.loads((up.data_dir / STACK).read_text())["runtime"]
    return Path(runtime) / "metrics"


async def test_processes_that_are_killed_take_no_counts_with_them(
    client: Client, up: Stack, files: Path
) -> None:
    campaign = await client.create(offers=[{"sku": "phone", "price": 5, "stock": 100}])

    def held(told: Told) -> float:
        return told.sum("doorbuster_reservations_total", campaign=campaign, outcome="held")

    def reserved(told: Told) -> float:
        return told.sum("doorbuster_settled_events_total", campaign=campaign, type="reserved")

    def pids() -> list[int]:
        return [pid for role in ROLES for pid in children(up, f"doorbuster {role}")]

    async def reserve(users: str) -> None:
        made = await asyncio.gather(*(client.reserve(campaign, user) for user in users))
        assert {answer.status for answer in made} == {201}

    async def all_alive() -> Told:
        try:
            return await scrape(client)
        except aiohttp.ClientError:
            return Told()

    def names() -> list[str]:
        """Of the files, without the pids."""
        return sorted(file.name.rpartition("_")[0] for file in files.glob("*.db"))

    await reserve("abcdefgh")
    before: Told = await eventually(lambda: scrape(client), lambda told: reserved(told) == 8)
    assert held(before) == 8
    counts = len(names())
    of_role = {role: children(up, f"doorbuster {role}") for role in ROLES}
    for pid in (old := pids()):
        os.kill(pid, signal.SIGKILL)
    await eventually(
        lambda: asyncio.sleep(0, pids()), lambda found: len(found) == len(old) and not {*found} & {*old}
    )
    lags = "doorbuster_event_loop_lag_seconds_count"
    told: Told = await eventually(
        all_alive, lambda told: all(told.sum(lags, role=role) > before.sum(lags, role=role) for role in ROLES)
    )
    again = "doorbuster_restarts_total"
    restarts = {role: before.sum(again, role=role) + len(killed) for role, killed in of_role.items()}
    await eventually(all_alive, lambda told: {role: told.sum(again, role=role) for role in ROLES} == restarts)
    rises = ("_total", "_count", "_bucket", "_sum")
    now = {(one.name, json.dumps(one.labels, sort_keys=True)): one.value for one in told}
    for one in before:
        if one.name.endswith(rises):
            assert now[one.name, json.dumps(one.labels, sort_keys=True)] >= one.value, one
    assert (held(told), reserved(told)) == (8, 8)
    await reserve("ijkl")
    await eventually(lambda: scrape(client), lambda told: (held(told), reserved(told)) == (12, 12))
    # A process begins its files as it needs them; the dead have two in all.
    assert len(names()) <= counts + 2
