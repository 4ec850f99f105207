"""`doorbuster up`: everything in one place, in the foreground."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import aiohttp

from doorbuster.apply import apply_samples
from doorbuster.bootstrap import check_store
from doorbuster.data_dir import STACK, StackError, locked, read_private, with_secrets, write_private
from doorbuster.embedded import (
    postgres_program,
    redis_program,
    wait_for_postgres,
    wait_for_redis,
)
from doorbuster.roles import checked_store, stop_on_signals
from doorbuster.settings import PREFIX, Settings, SettingsError
from doorbuster.supervisor import Program, Supervisor
from gateway.metric_files import tidy

READY_SECONDS_MAX = 60.0


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Hold a port for gateway processes to share. Raises StackError when somebody else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe, socket.socket(family) as holder:
        try:
            # Alone first: sharing would let us in beside another stack, and split its requests.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
            probe.close()
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((host, port))
        except OSError as error:
            raise StackError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        except OverflowError:
            raise StackError(f"{port} is not a port") from None
        yield port


def role_program(
    role: str, settings: Settings, *arguments: str, name: str | None = None, metrics_dir: Path | None = None
) -> Program:
    """A role of ours as a process."""
    environment, ended = settings.environment(), None
    if metrics_dir is not None:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_dir)
        ended = partial(tidy, metrics_dir)
    command = [sys.executable, "-m", "doorbuster", role, *arguments]
    # The gateway is the top: once it has stopped, nothing new comes in.
    tier = 2 if role == "gateway" else 1
    return Program(name or role, command, environment, tier=tier, ended=ended)


def gateway_programs(
    settings: Settings, host: str, port: int, workers: int, metrics_dir: Path
) -> list[Program]:
    """Gateway processes that share a port."""
    arguments = ("--host", host, "--port", str(port), "--workers", "1")
    return [
        role_program("gateway", settings, *arguments, name=f"gateway-{n}", metrics_dir=metrics_dir)
        for n in range(1, workers + 1)
    ]


async def run_up(
    settings: Settings, host: str, port: int, data_dir: Path, workers: int, *, samples: bool
) -> None:
    """Start everything, say so, and keep it running until told to stop. Raises StackError, EmbeddedError,
    SettingsError.

    With `samples`, what starts with nothing in it gets some campaigns to look at.
    """
    if settings.redis_url is None and settings.redis_replicas:
        # Every change would wait for one in vain.
        raise SettingsError(
            f"{PREFIX}REDIS_REPLICAS: the embedded Redis has no replica; set {PREFIX}REDIS_URL as well"
        )
    try:
        data_dir = data_dir.resolve()
    except (OSError, RuntimeError) as error:
        raise StackError(f"cannot keep data in {data_dir}: {error}") from None
    stop = stop_on_signals()
    supervisor = Supervisor()
    with locked(data_dir), reserved_port(host, port) as port, _runtime(data_dir) as runtime:
        try:
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            if settings.public_url is None:
                settings = settings.model_copy(update={"public_url": url})
            settings = with_secrets(settings, data_dir)
            # Asked before they start. Once only: what became of the samples since is the merchant's.
            samples = samples and _is_all_new(settings, data_dir)
            settings = await _start_servers(supervisor, settings, data_dir, runtime, stop)
            if stop.is_set():
                return
            from settlement.migrate import migrate  # it brings along what nothing else needs

            await asyncio.to_thread(migrate, settings.postgres_dsn or "")
            metrics_dir = runtime / "metrics"
            metrics_dir.mkdir()
            programs = [role_program("worker", settings, metrics_dir=metrics_dir)]
            if settings.amqp_url is not None:
                programs.append(role_program("relay", settings, metrics_dir=metrics_dir))
            programs.append(role_program("sweeper", settings, metrics_dir=metrics_dir))
            programs += gateway_programs(settings, host, port, workers, metrics_dir)
            for program in programs:
                supervisor.start(program)
            await _ready(url, stop)
            reach = {"url": url, "pid": os.getpid(), "runtime": str(runtime)}
            reach["settings"] = settings.model_dump(exclude_none=True)
            write_private(data_dir / STACK, reach)
            if not stop.is_set():
                found = await apply_samples(settings) if samples else []
                print(f"ready {url}", flush=True)
                for one in found:
                    print(f"sample {one.id}: {one.title}, {url}/v1/campaigns/{one.id}", flush=True)
            await stop.wait()
        finally:
            await supervisor.stop()
            (data_dir / STACK).unlink(missing_ok=True)


def _is_all_new(settings: Settings, data_dir: Path) -> bool:
    """Whether both servers are to be embedded, and neither has any data."""
    if settings.redis_url is not None or settings.postgres_dsn is not None:
        return False
    return not any((data_dir / server).exists() for server in ("redis", "postgres"))


@contextmanager
def _runtime(data_dir: Path) -> Iterator[Path]:
    """A directory for sockets, which want short paths, and for what need not outlive us."""
    left = read_private(data_dir / STACK).get("runtime")
    if left is not None:  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    runtime = Path(tempfile.mkdtemp(prefix="doorbuster-"))
    runtime.chmod(0o711)  # PostgreSQL, as another user, has its own room in it
    try:
        yield runtime
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


async def run_gateways(settings: Settings, host: str, port: int, workers: int, metrics_dir: Path) -> None:
    """Several gateway processes on one port, until told to stop. Raises StackError, SettingsError."""
    stop = stop_on_signals()
    supervisor = Supervisor()
    # Here too: the processes would refuse, and be started again.
    async with checked_store(settings, stop):
        with reserved_port(host, port) as port:
            try:
                for program in gateway_programs(settings, host, port, workers, metrics_dir):
                    supervisor.start(program)
                await stop.wait()
            finally:
                await supervisor.stop()


async def _start_servers(
    supervisor: Supervisor, settings: Settings, data_dir: Path, runtime: Path, stop: asyncio.Event
) -> Settings:
    """Start what no URL was given for; the settings with their URLs."""
    if settings.redis_url is None:
        socket_path = runtime / "redis.sock"
        supervisor.start(redis_program(data_dir, socket_path))
        settings = settings.model_copy(update={"redis_url": f"unix://{socket_path}"})
    if settings.postgres_dsn is None:
        socket_dir = runtime / "postgres"
        socket_dir.mkdir()
        supervisor.start(await asyncio.to_thread(postgres_program, data_dir, socket_dir))
        dsn = f"postgresql://postgres@/postgres?host={socket_dir}"
        settings = settings.model_copy(update={"postgres_dsn": dsn})
    await wait_for_redis(settings.redis_url or "", stop)
    if not stop.is_set():
        await check_store(settings)
    await wait_for_postgres(settings.postgres_dsn or "", stop)
    return settings


async def _ready(url: str, stop: asyncio.Event) -> None:
    """Return once /readyz says 200. Raises StackError."""
    said = "no answer"
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(READY_SECONDS_MAX):
            while not stop.is_set():
                try:
                    async with session.get(f"{url}/readyz") as answer:
                        if answer.status == 200:
                            return
                        said = await answer.text()
                except aiohttp.ClientError as error:
                    said = str(error)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise StackError(f"not ready after {READY_SECONDS_MAX:g} s: {said}") from None
