"""`doorbuster up`: what it starts survives, and comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.commands import doorbuster
from tests.servers import free_port, redis_server, wait_until
from tests.stack import COMMAND, SECRETS, Answer, Client, Stack, eventually, stack


def children(stack: Stack, name: str) -> list[int]:
    """Process ids of the stack's own processes whose command line has this in it."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
            except (OSError, IndexError):
                continue
            if parent == stack.process.pid and name.encode() in command:
                found.append(int(directory.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SAMPLES = {"midnight-drop", "singles-day-phones", "tv-trade-in"}


async def campaigns(client: Client) -> dict[str, Any]:
    """All campaigns by id, once the gateways have heard of them."""
    await asyncio.sleep(0.5)  # what is not there can only be waited for in vain
    found = (await client.call("GET", "/v1/campaigns")).body["campaigns"]
    return {campaign["id"]: campaign for campaign in found}


def mentions_samples(running: Stack) -> bool:
    return b"\nsample " in running.log.read_bytes()


async def test_a_kill_of_everything_loses_no_acknowledged_reservation(tmp_path: Path) -> None:
    """kill -9 in the middle of a sale, a restart on the same data: all that was said is still true."""
    acknowledged: list[tuple[str, str]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        with stack(tmp_path / "data", "--workers", "1") as first:
            client = Client(first.url, session)
            campaign = await client.create(offers=[{"sku": "phone", "price": 5, "stock": 1_000_000}])
            pids = [pid for name in ("redis", "postgres", "doorbuster") for pid in children(first, name)]
            assert len(pids) >= 5

            async def buy(number: int) -> None:
                for attempt in range(1_000_000):
                    user = f"u{number}-{attempt}"
                    try:
                        answer = await client.reserve(campaign, user)
                    except (aiohttp.ClientError, TimeoutError):
                        return
                    if answer.status == 201:
                        acknowledged.append((answer.body["id"], user))

            buyers = [asyncio.create_task(buy(number)) for number in range(8)]
            await eventually(lambda: asyncio.sleep(0, len(acknowledged)), lambda count: count > 300)
            first.process.kill()
            for pid in pids:
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
            first.process.wait()
            await asyncio.gather(*buyers)
            wait_until(lambda: not any(map(alive, pids)), "all are gone")
        with stack(tmp_path / "data", "--workers", "1") as second:
            client = Client(second.url, session)
            for name, user in acknowledged:
                assert (await client.reservation(name, user))["state"] == "held"
            held = (await client.audit(campaign))["phone"]["held"]
            # A few may have been made whose answer never got out.
            assert len(acknowledged) <= held <= len(acknowledged) + 8
            assert (await client.reserve(campaign, "later")).status == 201


async def test_a_machine_without_redis_gets_that_of_the_wheel(tmp_path: Path) -> None:
    """As a newcomer's has none, the wheel's has to do for all that `up` does."""
    bare = tmp_path / "bin"
    bare.mkdir()
    for place in ("/usr/bin", "/usr/sbin", "/usr/local/bin"):
        for program in Path(place).iterdir():
            if "redis" not in program.name and "valkey" not in program.name:
                (bare / program.name).unlink(missing_ok=True)
                (bare / program.name).symlink_to(program)
    async with aiohttp.ClientSession() as session:
        with stack(tmp_path / "data", "--workers", "1", environment={"PATH": str(bare)}) as running:
            client = Client(running.url, session)
            campaign = await client.create(hold_seconds=1)
            made = await client.reserve(campaign, "ann")
            await client.in_state(made.body["id"], "ann", "expired")
            await client.audit(campaign)
            assert running.run("reconcile", "--repair").returncode == 0


async def test_what_dies_comes_back_by_itself(tmp_path: Path) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        with stack(tmp_path / "data", "--workers", "2") as running:
            client = Client(running.url, session)
            campaign = await client.create(hold_seconds=1)

            async def try_to_buy(user: str) -> Answer | None:
                try:
                    return await client.reserve(campaign, user, key=user)
                except (aiohttp.ClientError, TimeoutError):
                    return None

            for part in ("redis-server", "bin/postgres", " gateway", " worker", " sweeper"):
                for pid in children(running, part):
                    os.kill(pid, signal.SIGKILL)
                user = f"after-{part.strip()}"
                answer = await eventually(
                    lambda user=user: try_to_buy(user), lambda found: found and found.status == 201, 30
                )
                # Swept, and in the book: every part is at work again.
                await client.in_state(answer.body["id"], user, "expired", 30)
                await client.audit(campaign)


async def test_a_drain_answers_what_was_asked(tmp_path: Path) -> None:
    """SIGTERM under load: no request that was taken is dropped or answered with an error of ours."""
    with stack(tmp_path / "data", "--workers", "2") as running:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            client = Client(running.url, session)
            campaign = await client.create(offers=[{"sku": "phone", "price": 5, "stock": 100_000}])
            statuses: Counter[int] = Counter()

            async def buy(number: int) -> None:
                for attempt in range(100_000):
                    try:
                        answer = await client.reserve(campaign, f"u{number}-{attempt}")
                    except aiohttp.ClientConnectorError:
                        return  # nobody listens any more
                    statuses[answer.status] += 1

            buyers = [asyncio.create_task(buy(number)) for number in range(8)]
            await eventually(lambda: asyncio.sleep(0, statuses[201]), lambda count: count > 200)
            running.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*buyers)
            assert set(statuses) == {201}
            assert running.process.wait(30) == 0
            assert b"Traceback" not in running.log.read_bytes()


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory, redis_program: Path) -> Iterator[Stack]:
    """A stack on a Redis that is not embedded, and whose clock all the others are five minutes ahead of."""
    # The library itself: its command would stand between us and the process that we stop.
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    environment = {"LD_PRELOAD": str(library), "FAKETIME": "+5m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with redis_server(redis_program, tmp_path_factory.mktemp("redis")) as url:
        environment["DOORBUSTER_REDIS_URL"] = url
        home = tmp_path_factory.mktemp("ahead")
        with stack(home, "--workers", "1", environment=environment) as running:
            yield running


async def test_a_store_that_is_not_embedded_gets_no_samples(ahead: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        assert not SAMPLES & (await campaigns(Client(ahead.url, session))).keys()
    assert not mentions_samples(ahead)


async def test_not_one_millisecond_early_whatever_the_gateways_clock(ahead: Stack) -> None:
    """The gateway's clock is five minutes ahead of the store's; only the store's opens the sale."""
    async with aiohttp.ClientSession() as session:
        client = Client(ahead.url, session)
        probe = await client.create()
        answer = await client.call("GET", f"/v1/campaigns/{probe}")
        gateway_ahead = parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)
        assert gateway_ahead > timedelta(minutes=4), "the gateway's clock is wrong"
        shown = datetime.fromisoformat(answer.body["server_time"])
        assert abs(shown - datetime.now(UTC)) < timedelta(seconds=5), "and is not shown"
        opens_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        offers = [{"sku": "phone", "price": 5, "stock": 1_000}]
        campaign = await client.create(opens_at=opens_at.isoformat(), offers=offers)
        codes: list[str | None] = []
        created: list[datetime] = []

        async def press(number: int) -> None:
            while True:
                answer = await client.reserve(campaign, f"u{number}")
                codes.append(answer.code)
                if answer.status == 201:
                    created.append(datetime.fromisoformat(answer.body["created_at"]))
                    return

        await asyncio.gather(*(press(number) for number in range(20)))
        assert set(codes) == {"not_started", None}
        assert min(created) >= opens_at
        assert min(created) - opens_at < timedelta(milliseconds=500)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with all of its servers, and without samples. The tests below look at it, and then end it."""
    with stack(tmp_path_factory.mktemp("embedded"), "--workers", "2", "--no-samples") as running:
        yield running


async def test_samples_are_not_for_who_does_not_want_them(embedded: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        assert await campaigns(Client(embedded.url, session)) == {}
    assert not mentions_samples(embedded)


def test_nobody_else_gets_to_the_embedded_servers(embedded: Stack) -> None:
    runtime = Path(json.loads((embedded.data_dir / "stack.json").read_text())["runtime"])
    private = [runtime / "postgres", embedded.data_dir / "redis", embedded.data_dir / "postgres"]
    for place in [*private, runtime / "redis.sock", embedded.data_dir / "stack.json"]:
        assert place.stat().st_mode & 0o077 == 0, place


async def test_a_stack_that_is_killed_leaves_nothing_behind(embedded: Stack) -> None:
    pids = [pid for name in ("redis", "postgres", "doorbuster") for pid in children(embedded, name)]
    assert len(pids) >= 6
    embedded.process.kill()
    embedded.process.wait()
    wait_until(lambda: not any(map(alive, pids)), "its processes follow it")


async def test_samples_are_not_for_a_stack_that_is_no_longer_new(embedded: Stack) -> None:
    if embedded.process.poll() is None:  # else the test above has ended it
        embedded.process.terminate()
        embedded.process.wait(60)
    async with aiohttp.ClientSession() as session:
        with stack(embedded.data_dir, "--workers", "1") as running:
            assert await campaigns(Client(running.url, session)) == {}
            assert not mentions_samples(running)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DOORBUSTER_REDIS_URL": "localhost:6379"}, "DOORBUSTER_REDIS_URL: must start with redis://"),
        ({"DOORBUSTER_POSTGRES_DSN": "postgres"}, "DOORBUSTER_POSTGRES_DSN: is not a PostgreSQL DSN"),
        ({"DOORBUSTER_AMQP_URL": "http://x"}, "DOORBUSTER_AMQP_URL: must start with amqp://"),
        ({"DOORBUSTER_PSP_SECRET": "abc"}, "DOORBUSTER_PSP_SECRET: must be whsec_ followed by base64"),
        ({"DOORBUSTER_JWT_SECRET": "short"}, "DOORBUSTER_JWT_SECRET: must have at least 8 characters"),
        ({"DOORBUSTER_REDIS_URL": "redis://:::/x"}, "DOORBUSTER_REDIS_URL: "),
        ({"DOORBUSTER_JWKS": "no-such-file"}, "DOORBUSTER_JWKS: is neither a URL nor a file with a key set"),
        ({"DOORBUSTER_SANDBOX": "maybe"}, "DOORBUSTER_SANDBOX: "),
        (
            {"DOORBUSTER_REDIS_REPLICAS": "1"},
            "DOORBUSTER_REDIS_REPLICAS: the embedded Redis has no replica; set DOORBUSTER_REDIS_URL",
        ),
    ],
)
def test_a_malformed_setting_stops_the_start_with_one_clear_line(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    arguments = ("up", "--data-dir", str(tmp_path), "--port", str(free_port()))
    done = doorbuster(*arguments, environment={**os.environ, **SECRETS, **environment})
    assert done.returncode == 2
    assert done.stderr.startswith(f"doorbuster: {said}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("role", ["gateway", "worker", "relay", "sweeper", "migrate", "audit"])
def test_a_missing_setting_stops_the_start_with_one_clear_line(tmp_path: Path, role: str) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("DOORBUSTER_")}
    done = doorbuster(role, environment=bare, directory=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("doorbuster: DOORBUSTER_")
    assert "is not set" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_book_that_is_away_is_said_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "DOORBUSTER_POSTGRES_DSN": f"postgresql://127.0.0.1:{free_port()}/x"}
    done = doorbuster("migrate", environment=environment, directory=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("doorbuster: BookUnavailable: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("reconcile",), ("audit",), ("apply", "sale.yaml")], ids=" ".join)
def test_a_command_whose_book_is_away_says_so_in_one_line(
    tmp_path: Path, empty_redis_url: str, command: tuple[str, ...]
) -> None:
    environment = {
        **os.environ,
        "DOORBUSTER_REDIS_URL": empty_redis_url,
        "DOORBUSTER_POSTGRES_DSN": f"postgresql://127.0.0.1:{free_port()}/x",
    }
    (tmp_path / "sale.yaml").write_text(
        "id: a-sale\nkind: flash_sale\ncurrency: EUR\nopens_at: 2026-01-01T00:00:00Z\n"
        "closes_at: 2036-01-01T00:00:00Z\noffers: [{sku: a, price: 1, stock: 5}]\n"
    )
    done = doorbuster(*command, environment=environment, directory=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("doorbuster: BookUnavailable: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_taken_port_and_a_taken_directory_are_said_plainly(up: Stack, tmp_path: Path) -> None:
    port = up.url.rpartition(":")[2]
    for arguments, said in (
        (
            ["--port", port, "--data-dir", str(tmp_path)],
            f"cannot listen on 127.0.0.1:{port}: Address already in use",
        ),
        (
            ["--port", "0", "--data-dir", str(up.data_dir)],
            f"{up.data_dir} is in use by another doorbuster up",
        ),
    ):
        done = doorbuster("up", *arguments)
        assert (done.returncode, done.stderr) == (2, f"doorbuster: {said}\n")


def test_a_data_directory_that_cannot_be_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("x" * 400), Path("/dev/null")):
        done = doorbuster("up", "--port", "0", "--data-dir", str(place))
        assert done.returncode == 2
        assert done.stderr.startswith(f"doorbuster: cannot keep data in {place}")
        assert done.stderr.count("\n") == 1


def test_up_can_be_stopped_while_it_waits_for_a_server(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "up", "--port", "0", "--data-dir", str(tmp_path / "data")],
            stdout=log,
            stderr=log,
            env={**os.environ, "DOORBUSTER_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"},
        )
        wait_until(lambda: (tmp_path / "data" / "postgres" / "PG_VERSION").exists(), "it is starting")
        process.terminate()
        assert process.wait(20) == 0


async def test_an_empty_stack_begins_with_a_campaign_of_each_kind(tmp_path: Path) -> None:
    """They are open and work; a second start leaves them as they are by then."""
    async with aiohttp.ClientSession() as session:
        with stack(tmp_path / "data", "--workers", "1") as first:
            client = Client(first.url, session)
            found = await campaigns(client)
            assert {name: one["phase"] for name, one in found.items()} == dict.fromkeys(SAMPLES, "open")
            said = [line for line in first.log.read_text().splitlines() if line.startswith("sample ")]
            assert [line.split(":")[0] for line in said] == [f"sample {name}" for name in sorted(SAMPLES)]
            assert all(line.endswith(f"{first.url}/v1/campaigns/{line[7:].split(':')[0]}") for line in said)

            held = await client.reserve("midnight-drop", "ann", sku="phone-16")
            assert (await client.paid(held.body["id"], "ann"))["state"] == "confirmed"
            held = await client.reserve("singles-day-phones", "ann", sku="phone-16")
            assert held.body["due"]["amount"] == 10000
            after = await client.paid(held.body["id"], "ann", "deposit")
            assert (after["state"], after["due"]["amount"]) == ("deposit_paid", 529900)
            assert {"sku": "earbuds", "quantity": 1, "gift": True} in after["lines"]
            refused = await client.reserve("tv-trade-in", "ann", sku="soundbar")
            assert refused.code == "not_eligible"
            assert (await client.report("order-1", "ann", ("tv-65", 300000))).status == 201
            held = await client.reserve("tv-trade-in", "ann", sku="soundbar", order_id="order-1")
            assert (await client.paid(held.body["id"], "ann"))["state"] == "confirmed"
            for name in SAMPLES:
                await client.audit(name)

            closed = await client.call(
                "POST", "/v1/campaigns/midnight-drop/actions", service=True, json_body={"action": "close"}
            )
            assert closed.status == 200
            more = await client.call(
                "POST",
                "/v1/campaigns/tv-trade-in/offers/soundbar/stock",
                service=True,
                json_body={"delta": 7},
            )
            assert more.status == 200
        length = len(first.log.read_bytes())
        with stack(tmp_path / "data", "--workers", "1") as second:
            found = await campaigns(Client(second.url, session))
            assert found.keys() == SAMPLES
            assert found["midnight-drop"]["phase"] == "closed"
            assert found["tv-trade-in"]["offers"][0]["stock"] == 207
            assert b"\nsample " not in second.log.read_bytes()[length:]


def test_commands_find_the_running_stack_by_its_data_directory(up: Stack, tmp_path: Path) -> None:
    campaign = tmp_path / "sale.yaml"
    campaign.write_text(
        "id: from-a-file\nkind: flash_sale\ncurrency: EUR\nopens_at: 2026-01-01T00:00:00Z\n"
        "closes_at: 2036-01-01 00:00:00Z\noffers: [{sku: a, price: 1, stock: 5}]\n"
    )
    assert up.run("apply", str(campaign)).stdout == "from-a-file: created\n"
    assert up.run("apply", str(campaign)).stdout == "from-a-file: unchanged\n"
    campaign.write_text(campaign.read_text().replace("stock: 5", "stock: 7"))
    assert up.run("apply", str(campaign)).stdout == "from-a-file: changed\n  offers.a.stock: 5 -> 7\n"
    audited = up.run("audit", "from-a-file", "--json")
    assert audited.returncode == 0
    assert json.loads(audited.stdout)["campaigns"][0]["offers"] == [
        {"sku": "a", "stock": 7, "held": 0, "sold": 0, "available": 7}
    ]
    assert up.run("audit", "no-such-campaign").returncode == 2
    assert "every invariant holds" in up.run("audit", "from-a-file").stdout
    assert up.run("token", "--user", "ann").stdout.count(".") == 2
    assert up.run("dead-letters").stdout == "0 dead letters\n"
    campaign.write_text(campaign.read_text().replace("2026-01-01T", "2026-02-30T"))
    assert "is not YAML: day is out of range" in up.run("apply", str(campaign)).stderr
    campaign.write_text("[" * 5_000)
    assert up.run("apply", str(campaign)).returncode == 2
    assert up.run("token", "--user", "a\nb").returncode == 2
    campaign.write_text("id: UPPER\nkind: flash_sale\n")
    wrong = up.run("apply", str(campaign))
    assert wrong.returncode == 2
    assert f"{campaign}: id: " in wrong.stderr
    assert f"{campaign}: opens_at: Field required" in wrong.stderr
