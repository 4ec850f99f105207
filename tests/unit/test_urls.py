"""What says where the servers are is read before anything connects, and is wrong in one line."""

from __future__ import annotations

import pytest

from doorbuster.settings import SettingsError, read_settings
from reservation.redis_url import ClusterNodes, Sentinels, parse_redis_url


def test_one_server_is_what_redis_py_takes() -> None:
    urls = ["redis://a:6379/0", "rediss://user:pass@a/1", "unix:///tmp/redis.sock"]
    urls += [
        "redis://a/0?socket_timeout=2.5&max_connections=8&timeout=1",
        "unix:///a.sock?db=2&password=p%40ss",
    ]
    urls += ["rediss://a?ssl_ca_certs=/no/such/ca.pem&ssl_cert_reqs=none&client_name=shop"]
    for url in urls:
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
        ("redis+cluster://", "names no server after redis+cluster://"),
        ("redis://", "names no server after redis://"),
        ("redis+cluster:", "must start with redis://"),
        ("redis://a/0?socket_timeout=abc", "an option whose value cannot be used: socket_timeout"),
        ("rediss://a/0?ssl_cert_reqs=maybe", "an option whose value cannot be used: ssl_cert_reqs"),
        ("unix:///a.sock?db=first", "an option whose value cannot be used: db"),
        ("redis://a/0?protocol=9", "an option whose value cannot be used: protocol"),
        ("redis://a/0?max_connections=-1", "an option whose value cannot be used: max_connections"),
        ("redis://a/0?bogus=1", "an option that is not known here: bogus"),
        ("rediss://a/0?socket_timeout=1&bogus=1", "an option that is not known here: bogus"),
        ("unix:///a.sock?bogus=1", "an option that is not known here: bogus"),
        ("redis://a/0?ssl_ca_certs=ca.pem", "an option that is not known here: ssl_ca_certs"),
        ("rediss+sentinel://a/sale?ssl_bogus=1", "an option that is not known here: ssl_bogus"),
        ("rediss+cluster://a?ssl_check_hostname=x&ssl_min_version=x", "cannot be used: ssl_min_version"),
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
    with pytest.raises(SettingsError, match="heartbeat is in whole seconds, not 'soon'"):
        read_settings(amqp_url="amqp://a/?heartbeat=soon")


def test_a_cluster_survives_being_told_to_another_process() -> None:
    url = "redis+cluster://a:1,b:2"
    assert read_settings(redis_url=url).environment()["DOORBUSTER_REDIS_URL"] == url
