"""A Redis that would lose reservations by itself is not sold from, unless that is wanted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reservation.durability import durability
from reservation.redis_store import connect_redis
from tests.commands import doorbuster
from tests.servers import free_port, redis_server, running, wait_until
from tests.stack import COMMAND, SECRETS

NO_JOURNAL = ("--appendonly", "no")
SNAPSHOTS = (*NO_JOURNAL, "--save", "900", "1")
EVICTS = ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")


def refused(url: str, tmp_path: Path, *command: str, **given: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **SECRETS,
        **given,
        "DOORBUSTER_REDIS_URL": url,
        "DOORBUSTER_POSTGRES_DSN": "postgresql://127.0.0.1:1/none",
        "DOORBUSTER_AMQP_URL": "amqp://127.0.0.1:1/",
    }
    return doorbuster(*command, environment=environment, directory=tmp_path)


@contextmanager
def started_without(
    tmp_path: Path, command: tuple[str, ...]
) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """A role whose Redis is away, and knows it: its process, its log, and the port that the Redis has."""
    port, log = free_port(), tmp_path / "role.log"
    environment = {
        **SECRETS,
        "DOORBUSTER_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "DOORBUSTER_POSTGRES_DSN": "postgresql://127.0.0.1:1/none",
    }
    if command[0] == "relay":
        environment["DOORBUSTER_AMQP_URL"] = "amqp://127.0.0.1:1/"
    arguments = [str(free_port()) if one == "PORT" else one for one in command]
    with running([*COMMAND, *arguments], log, environment=environment) as process:
        wait_until(lambda: "durability_not_checked" in log.read_text(), "it has looked")
        yield process, log, port


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (NO_JOURNAL, "does not persist; set appendonly yes"),
        (EVICTS, "evicts keys when its memory is full; set maxmemory-policy noeviction"),
    ],
    ids=["no journal", "evicts"],
)
def test_a_redis_that_loses_by_itself_is_refused_with_one_clear_line(
    redis_program: Path, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    with redis_server(redis_program, tmp_path, *options) as url:
        for command in (
            ["gateway", "--port", str(free_port())],
            ["sweeper"],
            ["relay"],
            ["reconcile", "--repair"],
        ):
            found = refused(url, tmp_path, *command)
            assert found.returncode == 2, found
            said = f"DOORBUSTER_REDIS_URL: this Redis {why}, or DOORBUSTER_ALLOW_UNSAFE_REDIS=1"
            assert found.stderr.splitlines()[-1] == f"doorbuster: {said}"
            assert "Traceback" not in found.stderr


def test_a_cluster_that_is_none_is_refused_with_one_clear_line(redis_program: Path, tmp_path: Path) -> None:
    with redis_server(redis_program, tmp_path) as url:
        found = refused(url.replace("redis://", "redis+cluster://").removesuffix("/0"), tmp_path, "sweeper")
    said = "doorbuster: DOORBUSTER_REDIS_URL: this Redis is not a cluster; say redis:// without +cluster"
    assert (found.returncode, found.stderr) == (2, f"{said}\n")


@pytest.mark.parametrize(
    ("which", "options", "why"),
    [
        ("redis_program", (), "has no WAITAOF; Redis 7.2 and Valkey have"),
        ("wheel_redis_program", (), "has no WAITAOF; Redis 7.2 and Valkey have"),
        ("valkey_program", SNAPSHOTS, "keeps no journal; set appendonly yes"),
        (
            "valkey_program",
            ("--appendfsync", "everysec"),
            "has appendfsync everysec, for which every answer would wait; set appendfsync always",
        ),
    ],
    ids=["Redis 7.0", "Redis 6.2", "no journal", "everysec"],
)
def test_one_that_cannot_say_what_is_on_disk_is_refused_where_that_is_waited_for(
    request: pytest.FixtureRequest, tmp_path: Path, which: str, options: tuple[str, ...], why: str
) -> None:
    asked = {"DOORBUSTER_REDIS_REPLICAS": "1", "DOORBUSTER_REDIS_REPLICAS_ON_DISK": "1"}
    with redis_server(request.getfixturevalue(which), tmp_path, *options) as url:
        found = refused(url, tmp_path, "sweeper", **asked)
    said = f"doorbuster: DOORBUSTER_REDIS_REPLICAS_ON_DISK: this Redis {why}"
    assert (found.returncode, found.stderr) == (2, f"{said}\n")


def test_disks_of_how_many_replicas_are_waited_for_has_to_be_said(
    valkey_program: Path, tmp_path: Path
) -> None:
    with redis_server(valkey_program, tmp_path) as url:
        found = refused(url, tmp_path, "sweeper", DOORBUSTER_REDIS_REPLICAS_ON_DISK="1")
    said = "DOORBUSTER_REDIS_REPLICAS_ON_DISK: set DOORBUSTER_REDIS_REPLICAS as well: how many"
    assert (found.returncode, found.stderr) == (2, f"doorbuster: {said}\n")


@pytest.mark.parametrize(
    "command",
    [
        ("sweeper",),
        ("relay",),
        ("worker",),
        ("gateway", "--port", "PORT"),
        ("gateway", "--port", "PORT", "--workers", "2"),
    ],
    ids=["sweeper", "relay", "worker", "gateway", "gateways"],
)
def test_one_that_comes_later_is_refused_as_well(
    redis_program: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with (
        started_without(tmp_path, command) as (process, log, port),
        redis_server(redis_program, tmp_path, *NO_JOURNAL, port=port),
    ):
        assert process.wait(30) == 2
    said = "DOORBUSTER_REDIS_URL: this Redis does not persist; set appendonly yes, or "
    said += "DOORBUSTER_ALLOW_UNSAFE_REDIS=1"
    *before, last = log.read_text().splitlines()
    assert last == f"doorbuster: {said}"
    errors = [line for line in before if '"level": "error"' in line]
    assert any("store_refused" in line and said in line for line in errors)
    assert "Traceback" not in log.read_text()


def test_one_that_comes_later_and_keeps_what_it_is_given_is_used(redis_program: Path, tmp_path: Path) -> None:
    with (
        started_without(tmp_path, ("sweeper",)) as (process, log, port),
        redis_server(redis_program, tmp_path, port=port),
    ):
        wait_until(lambda: '"event": "durability"' in log.read_text(), "it is checked")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert log.read_text().count("durability_not_checked") == 1, "it keeps trying in silence"


def test_a_role_that_waits_for_its_redis_stops_when_told_to(tmp_path: Path) -> None:
    with started_without(tmp_path, ("sweeper",)) as (process, _, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_it_is_used_all_the_same_by_who_says_so(redis_program: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        **SECRETS,
        "DOORBUSTER_ALLOW_UNSAFE_REDIS": "1",
        "DOORBUSTER_POSTGRES_DSN": "postgresql://127.0.0.1:1/none",
    }
    with (
        redis_server(redis_program, tmp_path, *NO_JOURNAL) as url,
        subprocess.Popen(
            [*COMMAND, "sweeper"],
            env={**environment, "DOORBUSTER_REDIS_URL": url},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        first = next(line for line in process.stderr if "unsafe_redis" in line)
        assert "does not persist" in first
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "defect", "loses"),
    [
        ((), "", "nothing"),
        (("--appendfsync", "everysec"), "", "the last one or two seconds"),
        (("--appendfsync", "no"), "", "what the system has not written yet"),
        (SNAPSHOTS, "", "everything since the last snapshot"),
        (NO_JOURNAL, "does not persist; set appendonly yes", "everything"),
        (("--maxmemory", "100mb"), "", "nothing"),
    ],
    ids=["always", "everysec", "no fsync", "snapshots", "nothing", "full memory refuses"],
)
@pytest.mark.parametrize("which", ["redis_program", "wheel_redis_program", "valkey_program"])
def test_what_goes_with_its_machine_is_known(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    which: str,
    options: tuple[str, ...],
    defect: str,
    loses: str,
) -> None:
    async def look(url: str) -> None:
        async with connect_redis(url) as client:
            found = await durability(client)
            assert (found.defect, found.loses) == (defect, loses)

    with redis_server(request.getfixturevalue(which), tmp_path, *options) as url:
        asyncio.run(look(url))
