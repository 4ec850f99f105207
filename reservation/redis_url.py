"""How the store's servers are named: one server, sentinels that know it, or the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

Node = tuple[str, int]
"""Host and port."""

_ONE = ("redis", "rediss", "unix")
_SENTINEL = ("redis+sentinel", "rediss+sentinel")
_CLUSTER = ("redis+cluster", "rediss+cluster")
SCHEMES = (*_ONE, *_SENTINEL, *_CLUSTER)
_SENTINEL_PORT, _REDIS_PORT = 26379, 6379
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}


@dataclass(frozen=True)
class Sentinels:
    """Sentinels, and the service whose master they know."""

    nodes: tuple[Node, ...]
    service: str
    options: Mapping[str, Any]
    """How redis-py connects to the master."""
    sentinel_options: Mapping[str, Any]
    """How it connects to a sentinel."""


@dataclass(frozen=True)
class ClusterNodes:
    """Some nodes of a cluster, from which the others are learned."""

    nodes: tuple[Node, ...]
    options: Mapping[str, Any]


def parse_redis_url(url: str) -> str | Sentinels | ClusterNodes:
    """What the URL names; itself where it names one server. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not url.startswith(f"{scheme}://"):
        raise ValueError(f"must start with {' or '.join(f'{one}://' for one in SCHEMES)}")
    if not rest:
        raise ValueError(f"names no server after {scheme}://")
    if scheme in _ONE:
        _ = urlsplit(url).port  # raises ValueError, with the reason
        _check_options(url)
        return url
    authority, path, query = _parts(rest)
    auth, at, hosts = authority.rpartition("@")
    base = f"{scheme.partition('+')[0]}://{auth}{at}host"
    if scheme in _SENTINEL:
        service, _, db = path.partition("/")
        if not service:
            raise ValueError("must name the service that the sentinels watch: …host:port/service")
        if db and not db.isdecimal():
            raise ValueError(f"has a database that is not a number: {db}")
        own = {name: value for name, value in query.items() if name not in _SENTINEL_OPTIONS}
        theirs = {_SENTINEL_OPTIONS[name]: value for name, value in query.items() if name not in own}
        plain = f"{scheme.partition('+')[0]}://host"
        return Sentinels(
            _nodes(hosts, _SENTINEL_PORT),
            service,
            _options(f"{base}/{db}", own),
            {**_options(plain, own), **theirs},
        )
    if path not in ("", "0"):
        raise ValueError("has a database, and a cluster has none")
    return ClusterNodes(_nodes(hosts, _REDIS_PORT), _options(base, query))


def _parts(rest: str) -> tuple[str, str, dict[str, str]]:
    """Authority, path, and the options that redis-py takes for TLS, or we for sentinels."""
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    options = dict(parse_qsl(query))
    for name in options:
        if not name.startswith("ssl_") and name not in _SENTINEL_OPTIONS:
            raise ValueError(f"has an option that is not known here: {name}")
    return authority, path.rstrip("/"), options


def _check_options(url: str) -> None:
    """Raises ValueError for the first option that redis-py cannot make a connection with."""
    plain, _, query = url.partition("?")
    for name, value in parse_qsl(query):
        # One at a time, so that we know which it is. Nothing connects here.
        try:
            pool: Any = BlockingConnectionPool.from_url(f"{plain}?{urlencode({name: value})}")
            pool.make_connection()
        except TypeError:
            raise ValueError(f"has an option that is not known here: {name}") from None
        except (RedisError, ValueError, AttributeError, LookupError):
            # Without the value: it may be a password.
            raise ValueError(f"has an option whose value cannot be used: {name}") from None


def _options(url: str, query: Mapping[str, str]) -> dict[str, Any]:
    whole = f"{url}?{urlencode(query)}"
    _check_options(whole)
    found = dict(parse_url(whole))
    found.pop("host", None)
    return found


def _nodes(hosts: str, port: int) -> tuple[Node, ...]:
    return tuple(_node(host, port) for host in hosts.split(","))


def _node(text: str, port: int) -> Node:
    try:
        found = urlsplit(f"//{text}")
        host, own_port = found.hostname, found.port
    except ValueError as error:
        raise ValueError(f"has a host that cannot be read: {text!r}: {error}") from None
    if not host or found.path:
        raise ValueError(f"has a host that cannot be read: {text!r}")
    return host, own_port or port
