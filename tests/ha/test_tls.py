"""Servers that speak TLS: each way to name them is sold from, on either event loop, and found again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from reservation.outcomes import StoreUnavailable
from reservation.redis_store import RedisStore
from reservation.servers import connected
from tests.ha.certificates import Certificate, certificate
from tests.ha.redis_servers import SLOTS_ALL, Member
from tests.ha.shoppers import Shoppers, on_sale
from tests.servers import free_port, wait_until

Run = Callable[[Coroutine[Any, Any, None]], None]


class Named:
    """A server, and the URL that leads to it."""

    def __init__(self, server: Member, url: str) -> None:
        self.server = server
        self.url = url


def one(program: Path, home: Path, own: Certificate, running: ExitStack) -> Named:
    server, port = member(program, home / "one", own, running)
    return Named(server, f"rediss://127.0.0.1:{port}/0")


def sentinel(program: Path, home: Path, own: Certificate, running: ExitStack) -> Named:
    server, port = member(program, home / "master", own, running)
    theirs = free_port()
    watcher = Member(program, home / "sentinel", *own.redis_options(theirs), sentinel=True)
    (watcher.home / "sentinel.conf").write_text(
        f"sentinel monitor sale 127.0.0.1 {port} 1\nsentinel down-after-milliseconds sale 60000\n"
    )
    running.callback(watcher.kill)
    watcher.start()
    wait_until(lambda: "disconnected" not in str(watcher.call("SENTINEL", "MASTER", "sale")), "it is watched")
    return Named(server, f"rediss+sentinel://127.0.0.1:{theirs}/sale/0")


def cluster(program: Path, home: Path, own: Certificate, running: ExitStack) -> Named:
    options = ("--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(free_port()))
    server, port = member(program, home / "node", own, running, *options)
    server.call("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS_ALL - 1)
    wait_until(lambda: "cluster_state:ok" in str(server.call("CLUSTER", "INFO")), "the cluster is whole")
    return Named(server, f"rediss+cluster://127.0.0.1:{port}")


def member(
    program: Path, home: Path, own: Certificate, running: ExitStack, *options: str
) -> tuple[Member, int]:
    """A server that runs, and its port for TLS."""
    port = free_port()
    server = Member(program, home, *own.redis_options(port), *options)
    running.callback(server.kill)
    server.start()
    return server, port


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=[one, sentinel, cluster], ids=lambda kind: kind.__name__)
def named(
    request: pytest.FixtureRequest, redis_program: Path, tmp_path: Path, own: Certificate
) -> Iterator[Named]:
    with ExitStack() as running:
        yield request.param(redis_program, tmp_path, own, running)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_what_speaks_tls_is_sold_from_and_found_again(named: Named, own: Certificate, run: Run) -> None:
    async def selling() -> None:
        async with connected(f"{named.url}?ssl_ca_certs={own.authority}") as servers:
            store = RedisStore(servers)
            shoppers = Shoppers(store, await on_sale(store, "sale", 10_000))
            async with shoppers.coming():
                await shoppers.more()
                await asyncio.to_thread(named.server.kill)
                await shoppers.told_at_once()
                await asyncio.to_thread(named.server.start)
                await shoppers.more()
            await shoppers.check()

    run(selling())


def test_who_does_not_know_the_authority_is_told(named: Named) -> None:
    async def asking() -> None:
        async with connected(named.url) as servers:
            with pytest.raises(StoreUnavailable, match=r"CERTIFICATE_VERIFY_FAILED|no sentinel knows"):
                await RedisStore(servers).now_ms()

    asyncio.run(asking())
