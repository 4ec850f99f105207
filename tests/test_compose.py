"""What is deployed is what the code takes: docker-compose.yml and the Dockerfile against the command."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import doorbuster.cli
import doorbuster.roles
import doorbuster.stack
import settlement.migrate
from doorbuster.settings import PREFIX, Settings
from doorbuster.supervisor import Program

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
ONE_SHOT = {"migrate"}
EXAMPLE = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
SETTINGS = {PREFIX + field.upper() for field in Settings.model_fields}
REFERENCE = re.compile(r"\$\{(\w+)(:\?[^}]+)?\}")
OPTIONAL = re.compile(r"\$\{(\w+):-\}")

every_one_of_ours = pytest.mark.parametrize("name", OURS)
every_service = pytest.mark.parametrize("name", SERVICES)


def environment_of(name: str, **more: str) -> dict[str, str]:
    """What a service is told, once .env is filled in the way .env.example says, and has `more` in it."""
    filled = {variable: value + "0123456789abcdef" * 4 for variable, value in EXAMPLE.items()} | more
    told = SERVICES[name].get("environment", {})
    given = {key: OPTIONAL.sub(lambda found: filled.get(found[1], ""), value) for key, value in told.items()}
    return {key: REFERENCE.sub(lambda found: filled[found[1]], value) for key, value in given.items()}


def environment_values() -> list[str]:
    return [value for service in SERVICES.values() for value in service.get("environment", {}).values()]


def option(name: str, flag: str) -> str:
    command = SERVICES[name]["command"]
    return str(command[command.index(flag) + 1])


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which roles the command came to start. Nothing is started."""
    found: list[str] = []

    def would_run(role: str) -> Callable[..., Any]:
        async def run(*_: object) -> None:
            found.append(role)

        return run

    for role in ("relay", "worker", "sweeper"):
        monkeypatch.setattr(doorbuster.roles, f"run_{role}", would_run(role))
    monkeypatch.setattr(doorbuster.stack, "run_gateways", would_run("gateway"))
    monkeypatch.setattr(settlement.migrate, "migrate", lambda dsn: found.append("migrate"))
    monkeypatch.setattr(doorbuster.cli, "configure_logs", lambda role, level: None)
    monkeypatch.setattr(
        "prometheus_client.start_http_server", lambda port: found.append(f"metrics on {port}")
    )
    return found


def test_every_role_is_deployed() -> None:
    assert OURS == ["gateway", "migrate", "relay", "sweeper", "worker"]


@every_one_of_ours
def test_the_command_takes_its_options_and_settings(name: str, started: list[str]) -> None:
    unset = dict.fromkeys(SETTINGS)
    result = CliRunner().invoke(
        doorbuster.cli.app, SERVICES[name]["command"], env={**unset, **environment_of(name)}
    )
    assert result.exit_code == 0, result.output or result.exception
    assert started[-1] == name


def test_every_variable_of_ours_is_a_setting() -> None:
    told = EXAMPLE.keys() | {variable for name in OURS for variable in SERVICES[name]["environment"]}
    assert {variable for variable in told if variable.startswith(PREFIX)} <= SETTINGS
    assert all(SERVICES[name]["environment"].keys() <= SETTINGS for name in OURS)


def test_gateway_and_worker_agree_on_the_sandbox() -> None:
    for name in ("gateway", "worker"):
        told = environment_of(name)
        assert told["DOORBUSTER_SANDBOX"] == "1"
        url = f"http://gateway:{option('gateway', '--port')}/sandbox/refunds"
        assert told["DOORBUSTER_REFUND_URL"] == url


def test_notifications_go_where_they_are_told_to() -> None:
    assert environment_of("worker")["DOORBUSTER_NOTIFY_URL"] == ""
    url = "https://shop.example/doorbuster"
    assert environment_of("worker", DOORBUSTER_NOTIFY_URL=url)["DOORBUSTER_NOTIFY_URL"] == url
    optional = {found for value in environment_values() for found in OPTIONAL.findall(value)}
    assert optional == {"DOORBUSTER_NOTIFY_URL"}
    assert all(variable in (ROOT / ".env.example").read_text() for variable in optional)


def test_every_secret_comes_from_outside_and_is_demanded() -> None:
    references = [found for value in environment_values() for found in REFERENCE.findall(value)]
    assert {variable for variable, _ in references} == EXAMPLE.keys()
    assert all(demanded for _, demanded in references)
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search(r"SECRET|PASS|KEY|DSN|AMQP", key):
                assert REFERENCE.search(value), f"{key} has its secret in the file"


def test_the_example_holds_no_secret() -> None:
    assert {value for value in EXAMPLE.values() if value} == {"whsec_"}


@every_service
def test_every_service_is_checked_and_restarted(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        assert "healthcheck" not in service
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert seconds(service["healthcheck"]["timeout"]) <= seconds(service["healthcheck"]["interval"])


@pytest.mark.parametrize("name", [name for name in OURS if name not in ONE_SHOT])
def test_a_role_is_checked_where_it_answers(name: str) -> None:
    port, path = (
        (option(name, "--port"), "/readyz")
        if name == "gateway"
        else (option(name, "--metrics-port"), "/metrics")
    )
    interpreter, flag, code = SERVICES[name]["healthcheck"]["test"][1:]
    assert (interpreter, flag) == ("python", "-c")
    assert f"http://127.0.0.1:{port}{path}" in code
    compile(code, name, "exec")


@pytest.mark.parametrize("name", [name for name in OURS if name not in ONE_SHOT])
def test_a_role_starts_after_the_migration(name: str) -> None:
    awaited = SERVICES[name]["depends_on"]
    assert awaited["migrate"]["condition"] == "service_completed_successfully"
    assert awaited.keys() <= SERVICES.keys()


def test_a_gateway_has_time_to_drain() -> None:
    each = Program("gateway-1", []).stop_seconds_max
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > each * int(option("gateway", "--workers"))


def scraped() -> list[dict[str, Any]]:
    configured = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    jobs: list[dict[str, Any]] = configured["scrape_configs"]
    return jobs


def test_prometheus_asks_every_container_of_a_role_where_it_answers() -> None:
    asked = {
        found["names"][0]: (found["type"], str(found["port"]))
        for job in scraped()
        for found in job.get("dns_sd_configs", [])
    }
    expected = {"gateway": ("A", option("gateway", "--port"))}
    for name in ("relay", "worker", "sweeper"):
        expected[name] = ("A", option(name, "--metrics-port"))
    assert asked == expected
    assert all(job["job_name"] in asked for job in scraped() if "dns_sd_configs" in job)


def test_prometheus_asks_every_exporter_and_itself() -> None:
    targets = {
        target.split(":")[0]
        for job in scraped()
        for static in job.get("static_configs", [])
        for target in static["targets"]
    }
    exporters = {name for name in SERVICES if name.endswith("-exporter")}
    assert targets == {*exporters, "rabbitmq", "localhost"}
    ports = {
        target.split(":")[0]: target.split(":")[1]
        for job in scraped()
        for static in job.get("static_configs", [])
        for target in static["targets"]
    }
    for name in exporters:
        assert f"127.0.0.1:{ports[name]}/" in SERVICES[name]["healthcheck"]["test"][-1]


def test_every_role_may_run_any_number_of_times() -> None:
    for name in ("relay", "worker", "sweeper"):
        assert not SERVICES[name].keys() & {"ports", "container_name", "hostname"}


def test_what_watches_may_only_look() -> None:
    assert SERVICES["postgres-exporter"]["environment"]["DATA_SOURCE_USER"] == "exporter"
    assert "GRANT pg_monitor TO exporter" in (ROOT / "monitoring/postgres/exporter_role.sh").read_text()
    for name in ("prometheus", "grafana", "node-exporter"):
        mounts = [volume for volume in SERVICES[name].get("volumes", []) if volume[0] in "./"]
        assert mounts
        assert all(":ro" in mount for mount in mounts)
    for name in ("redis-exporter", "postgres-exporter", "node-exporter", "prometheus", "grafana"):
        assert "depends_on" not in SERVICES[name]
        assert not SERVICES[name].get("privileged")


def test_redis_keeps_what_it_acknowledges() -> None:
    assert option("redis", "--appendonly") == "yes"
    assert option("redis", "--appendfsync") == "always"
    assert option("redis", "--maxmemory-policy") == "noeviction"
    assert option("redis", "--save") == "", "no snapshots, whose failure would have it refuse every change"


@pytest.mark.parametrize("name", ["redis", "rabbitmq", "postgres", "prometheus"])
def test_data_outlives_its_container(name: str) -> None:
    sources = {volume.split(":")[0] for volume in SERVICES[name]["volumes"]}
    assert sources & COMPOSE["volumes"].keys()


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).is_dir(), volume


def test_grafana_finds_the_dashboards() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    provisioning = ROOT / "monitoring/grafana/provisioning/dashboards/doorbuster.yml"
    [provider] = yaml.safe_load(provisioning.read_text())["providers"]
    inside = mounts["./monitoring/grafana/dashboards"]
    assert provider["options"]["path"] == inside
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / home.replace(inside, "monitoring/grafana/dashboards")).is_file()


def test_nothing_is_published_beyond_this_machine_while_the_sandbox_is_on() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@every_service
def test_images_have_short_names(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9_-]+)?(:[\w.-]+)?", SERVICES[name]["image"])


def test_the_image_holds_every_package_and_sees_nothing_else() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {package.split(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    assert packages <= copied
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= copied
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored.index("*") < min(ignored.index(f"!{source}") for source in copied)
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
