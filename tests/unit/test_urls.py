"""What says where the servers are is read before anything connects, and is wrong in one line."""

from __future__ import annotations

import pytest

from doorbuster.settings import SettingsError, read_settings
from reservation.redis_url import ClusterNodes, Sentinels, parse_redis_url


def test_one_server_is_what_redis_py_takes() -> None:
    for url in ("redis://a:6379/0", "rediss://user:pass@a/1", "unix:///tmp/redis.sock"):
        assert parse_redis_url(url) == url


def test_sentinels_are_named_with_the_service_that_they_watch() -> None:
    found = parse_redis_url("redis+sentinel://ann:p%40ss@a,b:26380,[::1]:26381/sale/2?sentinel_password=x")
    assert isinstance(found, Sentinels)
    assert found.nodes == (("a", 26379), ("b", 26380), ("::1", 26381))
    assert found.service == "sale"
    assert found.options == {"username": "ann", "password": "p@ss", "db": 2}
    assert found.sentinel_options == {"password": "x"}


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    found = parse_redis_url("redis+cluster://:secret@a,b:7001")
    assert isinstance(found, ClusterNodes)
    assert found.nodes == (("a", 6379), ("b", 7001))
    assert found.options == {"password": "secret"}


def test_with_tls_both_sentinels_and_servers_are_asked_so() -> None:
    found = parse_redis_url("rediss+sentinel://a/sale?ssl_ca_certs=/etc/ca.pem")
    assert isinstance(found, Sentinels)
    for options in (found.options, found.sentinel_options):
        assert options["ssl_ca_certs"] == "/etc/ca.pem"
        assert options["connection_class"].__name__ == "SSLConnection"


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("localhost:6379", "must start with redis://"),
        ("redis+sentinel://a:26379", "must name the service"),
        ("redis+sentinel://a/sale/two", "a database that is not a number: two"),
        ("redis+sentinel://a,,b/sale", "a host that cannot be read: ''"),
        ("redis+sentinel://a:port/sale", "a host that cannot be read: 'a:port'"),
        ("redis+sentinel://a/sale?timeout=1", "an option that is not known here: timeout"),
        ("redis+cluster://a/3", "has a database, and a cluster has none"),
        ("redis+cluster://", "must start with redis://"),
    ],
)
def test_a_redis_url_that_is_wrong_is_told_in_one_line(url: str, wrong: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(redis_url=url)
    said = str(caught.value)
    assert said.startswith("DOORBUSTER_REDIS_URL: ")
    assert wrong in said
    assert "\n" not in said


def test_a_brokers_nodes_are_separated_by_commas() -> None:
    assert read_settings(amqp_url="amqp://a/, amqp://b:5673/").amqp_url == "amqp://a/,amqp://b:5673/"
    with pytest.raises(SettingsError, match="DOORBUSTER_AMQP_URL: must start with amqp://"):
        read_settings(amqp_url="amqp://a/,b:5672")


def test_a_cluster_survives_being_told_to_another_process() -> None:
    url = "redis+cluster://a:1,b:2"
    assert read_settings(redis_url=url).environment()["DOORBUSTER_REDIS_URL"] == url
