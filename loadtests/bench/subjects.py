"""What is measured: each a server that takes reservations on a port."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import string
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from doorbuster.settings import Settings
from loadtests.bench.cpu import Cores
from loadtests.bench.options import BUILT, Options
from loadtests.bench.plan import CAMPAIGN, STOCK, sale
from loadtests.bench.servers import Server, http_server

PEERS = Path(__file__).parents[1] / "peers"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") or ""
NGINX_LUA = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
NGINX_REDIS = BUILT / "lua/usr/share/lua/5.1/nginx/redis.lua"
NODE = shutil.which("node") or ""
FASTIFY = BUILT / "fastify"
ANSWER_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets of a run."""

    jwt_secret: str = field(default_factory=lambda: secrets.token_hex(16))
    service_key: str = field(default_factory=lambda: secrets.token_hex(16))
    psp_secret: str = field(default_factory=lambda: f"whsec_{b64encode(secrets.token_bytes(24)).decode()}")


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts stand on."""

    options: Options
    cores: Cores
    keys: Keys
    users: Path
    book_dsn: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subject starts: a directory, its Redis, and the plan of what is on sale in that."""

    home: Path
    redis_port: int
    plan: Path = Path()


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    start: Callable[[Bench, Place], AbstractContextManager[Server]]
    installed: Callable[[], bool] = lambda: True
    fsync: str = "everysec"
    stock: int = STOCK
    status: int = 201
    """What every request is answered."""
    reserves: bool = True
    """Whether an accepted request is a reservation in Redis."""
    plans: bool = True
    """Whether the sale is put into Redis before it starts, with the plan for it."""


def _echo(bench: Bench, place: Place) -> AbstractContextManager[Server]:
    command = [sys.executable, "-m", "loadtests.peers.echo"]
    return http_server("echo", lambda port: [*command, str(port)], place.home, bench.cores.server)


def _one_evalsha(bench: Bench, place: Place) -> AbstractContextManager[Server]:
    command = [sys.executable, "-m", "loadtests.peers.one_evalsha"]
    given = [str(place.redis_port), str(place.plan)]
    return http_server(
        "one_evalsha", lambda port: [*command, str(port), *given], place.home, bench.cores.server
    )


def _fastify(bench: Bench, place: Place) -> AbstractContextManager[Server]:
    command, given = [NODE, str(PEERS / "fastify.mjs")], [str(place.redis_port), str(place.plan)]
    return http_server(
        "fastify",
        lambda port: [*command, str(port), *given],
        place.home,
        bench.cores.server,
        environment={"NODE_ENV": "production"},
        at=FASTIFY,
    )


def _nginx(bench: Bench, place: Place) -> AbstractContextManager[Server]:
    template = string.Template((PEERS / "nginx.conf").read_text("utf-8"))
    conf = place.home / "nginx.conf"

    def command(port: int) -> list[str]:
        given = {
            "port": port,
            "redis_port": place.redis_port,
            "plan": place.plan,
            "peers": PEERS,
            "built": BUILT,
        }
        conf.write_text(template.substitute(given), "utf-8")
        # Its own log too, lest it open the system's before it has read where to write.
        return [NGINX, "-p", str(place.home), "-c", str(conf), "-e", "stderr"]

    return http_server("nginx", command, place.home, bench.cores.server)


@contextmanager
def doorbuster(
    bench: Bench, place: Place, stock: int = STOCK, program: Sequence[str] = ("doorbuster",)
) -> Iterator[Server]:
    """`program` is the module that is run, with what it is told before the rest."""
    settings = Settings(
        redis_url=f"redis://127.0.0.1:{place.redis_port}/0",
        postgres_dsn=bench.book_dsn,
        jwt_secret=bench.keys.jwt_secret,
        service_key=bench.keys.service_key,
        psp_secret=bench.keys.psp_secret,
    )
    command = [sys.executable, "-m", *program, "gateway", "--workers", "1", "--port"]
    with http_server(
        "doorbuster",
        lambda port: [*command, str(port)],
        place.home,
        bench.cores.server,
        environment=settings.environment(),
    ) as server:
        _put(server.port, bench.keys.service_key, stock)
        yield server


def _sold_out(bench: Bench, place: Place) -> AbstractContextManager[Server]:
    return doorbuster(bench, place, stock=0)


def _put(port: int, service_key: str, stock: int) -> None:
    """Create the campaign, as its merchant does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)
    headers = {"Authorization": f"Bearer {service_key}", "Content-Type": "application/json"}
    try:
        connection.request("PUT", f"/v1/campaigns/{CAMPAIGN}", json.dumps(sale(stock)), headers)
        answer = connection.getresponse()
        if answer.status not in (http.client.CREATED, http.client.OK):
            raise RuntimeError(f"the campaign was not created: {answer.status} {answer.read()!r}")
    finally:
        connection.close()


def _fastify_installed() -> bool:
    return bool(NODE) and (FASTIFY / "node_modules" / "ioredis").exists()


def _nginx_installed() -> bool:
    return bool(NGINX) and NGINX_LUA.exists() and NGINX_REDIS.exists()


ECHO = "echo"
ONE_EVALSHA = "aiohttp + redis-py"
FASTIFY_IOREDIS = "Fastify + ioredis"
NGINX_LUA_REDIS = "nginx + Lua"
DOORBUSTER = "doorbuster"
DOORBUSTER_ALWAYS = "doorbuster, fsync always"
DOORBUSTER_SOLD_OUT = "doorbuster, sold out"

SUBJECTS = (
    Subject(ECHO, _echo, reserves=False, plans=False),
    Subject(ONE_EVALSHA, _one_evalsha),
    Subject(FASTIFY_IOREDIS, _fastify, _fastify_installed),
    Subject(NGINX_LUA_REDIS, _nginx, _nginx_installed),
    Subject(DOORBUSTER, doorbuster, plans=False),
    Subject(DOORBUSTER_ALWAYS, doorbuster, fsync="always", plans=False),
    Subject(DOORBUSTER_SOLD_OUT, _sold_out, stock=0, status=409, plans=False),
)
