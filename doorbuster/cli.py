"""The `doorbuster` command."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from doorbuster.errors import Misconfigured
from doorbuster.log import configure_logs, log_unhandled
from doorbuster.settings import Settings, SettingsError, read_settings
from reservation.outcomes import Fault
from reservation.validation import Invalid

app = typer.Typer(
    help="Doorbuster: reservations for flash sales, presales and trade-ins.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DataDir = Annotated[
    Path, typer.Option(help="Where `doorbuster up` keeps its data.", envvar="DOORBUSTER_DATA_DIR")
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)]
Workers = Annotated[int, typer.Option(help="Gateway processes.", min=1, max=64)]
MetricsPort = Annotated[
    int | None, typer.Option(help="Serve this process's /metrics on this port.", min=1, max=65535)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DATA_DIR = Path(".doorbuster")


def main() -> None:
    """Run the command; what is wrong with the settings or the machine is one line, and exit code 2."""
    try:
        app()
    except (Misconfigured, Invalid) as error:
        typer.echo(f"doorbuster: {error}", err=True)
        sys.exit(2)
    except Fault as error:
        said = " ".join(str(error).split())  # a driver's word may have many lines
        typer.echo(f"doorbuster: {type(error).__name__}: {said}", err=True)
        sys.exit(3)


def _run(role: str, settings: Settings, running: Coroutine[Any, Any, Any]) -> Any:
    configure_logs(role, settings.log_level)

    async def run() -> Any:
        asyncio.get_running_loop().set_exception_handler(log_unhandled)
        return await running

    try:
        import uvloop
    except ImportError:
        return asyncio.run(run())
    return uvloop.run(run())


def _default_workers() -> int:
    return min(4, os.cpu_count() or 1)


@app.command()
def up(
    port: Port = 8080,
    host: Host = "127.0.0.1",
    data_dir: DataDir = DATA_DIR,
    workers: Annotated[int | None, typer.Option(help="Gateway processes.", min=1, max=64)] = None,
    sandbox: Annotated[
        bool | None, typer.Option(help="A stand-in payment provider. On, unless DOORBUSTER_SANDBOX=0.")
    ] = None,
    samples: Annotated[
        bool, typer.Option(help="Begin with a campaign of each kind, where all is embedded and new.")
    ] = True,
) -> None:
    """Everything in one place, in the foreground: servers that no URL is given for are embedded."""
    from doorbuster.stack import run_up

    settings = read_settings(sandbox=sandbox)
    if settings.sandbox is None:
        settings = settings.model_copy(update={"sandbox": True})
    configure_logs("up", settings.log_level)
    asyncio.run(run_up(settings, host, port, data_dir, workers or _default_workers(), samples=samples))


@app.command()
def gateway(
    port: Port = 8080,
    host: Host = "127.0.0.1",
    workers: Workers = 1,
    sandbox: Annotated[bool | None, typer.Option(help="A stand-in payment provider.")] = None,
) -> None:
    """The HTTP gateway. Several workers share the port and answer /metrics as one."""
    settings = read_settings(sandbox=sandbox)
    settings.need("redis_url", "postgres_dsn", "service_key", "psp_secret")
    if settings.jwks is None:
        settings.need("jwt_secret")
    if workers == 1:
        from doorbuster.roles import run_gateway

        _run("gateway", settings, run_gateway(settings, host, port))
    else:
        from doorbuster.stack import run_gateways

        configure_logs("gateway", settings.log_level)
        with tempfile.TemporaryDirectory(prefix="doorbuster-metrics-") as metrics_dir:
            asyncio.run(run_gateways(settings, host, port, workers, Path(metrics_dir)))


@app.command()
def worker(metrics_port: MetricsPort = None) -> None:
    """Settles events into PostgreSQL, asks for refunds, and sends notifications."""
    settings = read_settings()
    settings.need("postgres_dsn")
    if settings.notify_url is not None:
        settings.need("notify_secret")
    if settings.amqp_url is None:
        settings.need("redis_url")
    from doorbuster.roles import run_worker

    _serve_metrics(metrics_port)
    _run("worker", settings, run_worker(settings))


@app.command()
def relay(metrics_port: MetricsPort = None) -> None:
    """Moves events from the outbox to RabbitMQ."""
    settings = read_settings()
    settings.need("redis_url", "amqp_url")
    from doorbuster.roles import run_relay

    _serve_metrics(metrics_port)
    _run("relay", settings, run_relay(settings))


@app.command()
def sweeper(metrics_port: MetricsPort = None) -> None:
    """Does what time asks for: expires, forfeits, reminds, and serves the waitlist."""
    settings = read_settings()
    settings.need("redis_url", "postgres_dsn")
    from doorbuster.roles import run_sweeper

    _serve_metrics(metrics_port)
    _run("sweeper", settings, run_sweeper(settings))


@app.command()
def migrate() -> None:
    """Bring the PostgreSQL schema up to date."""
    settings = read_settings()
    settings.need("postgres_dsn")
    from settlement.migrate import migrate as bring_up_to_date

    bring_up_to_date(settings.postgres_dsn or "")


@app.command()
def apply(
    files: Annotated[list[Path], typer.Argument(help="YAML or JSON; a file may hold several campaigns.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Create or change campaigns. Idempotent; says what changed."""
    from doorbuster.apply import apply_files

    configure_logs("apply", read_settings().log_level)
    settings = _reaching(data_dir)
    for line in asyncio.run(apply_files(settings, files)):
        typer.echo(line)


@app.command()
def audit(
    campaign: Annotated[str | None, typer.Argument(help="One campaign; all when left out.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Check every invariant across Redis and PostgreSQL; exit 1 on a violation."""
    from doorbuster.audit import run_audit, table

    configure_logs("audit", read_settings().log_level)
    found = asyncio.run(run_audit(_reaching(data_dir), campaign))
    if found is None:
        typer.echo(f"doorbuster: there is no campaign {campaign}", err=True)
        raise typer.Exit(2)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else table(found))
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def reconcile(
    campaign: Annotated[str | None, typer.Argument(help="One campaign; all when left out.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Compare Redis with PostgreSQL and explain every difference; exit 1 if one is left."""
    from doorbuster.reconcile import run_reconcile, text

    configure_logs("reconcile", read_settings().log_level)
    found = asyncio.run(run_reconcile(_reaching(data_dir), campaign, repair=repair))
    if found is None:
        typer.echo(f"doorbuster: there is no campaign {campaign}", err=True)
        raise typer.Exit(2)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else text(found, repair=repair))
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def report(
    campaign: Annotated[str, typer.Argument(help="The campaign.")],
    html: Annotated[Path | None, typer.Option(help="Write one HTML file, with pictures.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write CSV files into this directory.")] = None,
    as_json: AsJson = False,
    compare: Annotated[str | None, typer.Option(help="An earlier campaign, to put beside it.")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """What a campaign came to: its figures, by the book, and pictures of them."""
    from doorbuster.report.run import run_report, write_page, write_tables
    from doorbuster.report.text import text
    from reservation.outcomes import Refusal

    configure_logs("report", read_settings().log_level)
    found = asyncio.run(run_report(_with_book(data_dir), campaign, compare))
    if isinstance(found, Refusal):
        typer.echo(f"doorbuster: {found.detail.rstrip('.')}", err=True)
        raise typer.Exit(2)
    if html is not None:
        write_page(found, html)
    if csv is not None:
        write_tables(found, csv)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif html is None and csv is None:
        typer.echo(text(found))
    else:
        typer.echo("\n".join(str(path) for path in (html, csv) if path is not None))


@app.command()
def rehearse(
    file: Annotated[Path, typer.Argument(metavar="CAMPAIGN", help="YAML or JSON, as for apply.")],
    shoppers: Annotated[int, typer.Option(help="Distinct shoppers.", min=1, max=1_000_000)],
    peak: Annotated[float, typer.Option(help="Arrivals per second at the height of the opening.", min=1)],
    host: Annotated[
        str | None, typer.Option(help="http://HOST:PORT of the deployment; left out, the `up` in --data-dir.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each step.", min=1, max=600)] = 10,
    steps: Annotated[int, typer.Option(help="Steps up to the peak.", min=1, max=20)] = 4,
    p99_ms: Annotated[float, typer.Option(help="Slower than this is not holding.", min=1)] = 500,
    as_json: AsJson = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Say before the day whether this deployment holds: play the opening with copies of a campaign.

    Exit 0 when it holds at the peak and the audit is clean, 1 when not.
    """
    from doorbuster.rehearse import plan_rehearsal, run_rehearse

    rehearsal = plan_rehearsal(
        *(file, data_dir),
        host=host,
        shoppers=shoppers,
        peak=peak,
        steps=steps,
        seconds=seconds,
        p99_ms=p99_ms,
    )

    def say(line: str) -> None:
        if not as_json:
            print(line, flush=True)  # each step as it ends

    found = _run("rehearse", read_settings(), run_rehearse(rehearsal, say))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def token(
    user: Annotated[str, typer.Option(help="The user's id.")],
    tier: Annotated[str | None, typer.Option(help="The user's tier.")] = None,
    ttl: Annotated[int, typer.Option(help="Seconds until it expires.", min=1, max=10**9)] = 3600,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """A user token for trying things out."""
    from doorbuster.data_dir import stack_settings
    from doorbuster.tokens import make_token
    from gateway.auth import USER_CHARS_MAX
    from reservation.text import is_printable

    settings = stack_settings(data_dir)
    settings.need("jwt_secret")
    for option, name in (("--user", user), ("--tier", tier)):
        if name is not None and not is_printable(name, USER_CHARS_MAX):
            raise typer.BadParameter(f"{option} must be 1 to {USER_CHARS_MAX} printable characters")
    typer.echo(make_token(settings.jwt_secret or "", user, tier=tier, ttl_s=ttl, now_s=int(time.time())))


@app.command("dead-letters")
def dead_letters(
    replay: Annotated[bool, typer.Option("--replay", help="Send them to the book again.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    as_json: AsJson = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Look at events that the book refused, or replay them."""
    from doorbuster import bootstrap

    async def work() -> None:
        settings = _reaching(data_dir, broker=True)
        async with bootstrap.dead_letters(settings) as letters:
            if replay:
                typer.echo(f"replayed {await letters.replay(limit)}")
                return
            found = await letters.look(limit)
            if as_json:
                typer.echo(json.dumps([letter._asdict() for letter in found], indent=2))
                return
            for letter in found:
                typer.echo(f"{letter.envelope.get('type')} {letter.envelope.get('id')}: {letter.reason}")
            typer.echo(f"{len(found)} dead letter{'' if len(found) == 1 else 's'}")

    configure_logs("dead-letters", read_settings().log_level)
    asyncio.run(work())


@app.command(hidden=True)
def demo(
    shoppers: Annotated[int, typer.Option(help="Of the flash sale.", min=10, max=100_000)] = 2_000,
    seed: Annotated[int, typer.Option(help="Of the shoppers' moods.")] = 1,
    report: Annotated[Path, typer.Option(help="Where the reports go.")] = Path("doorbuster-report"),
) -> None:
    """The whole thing, once, with simulated shoppers; what `make demo` runs."""
    from doorbuster.demo import run_demo

    configure_logs("demo")
    raise typer.Exit(asyncio.run(run_demo(shoppers, seed, report)))


def _reaching(data_dir: Path, *, broker: bool = False) -> Settings:
    """Settings that reach a running system; where there is a `broker`, that may be enough."""
    from doorbuster.data_dir import stack_settings

    settings = stack_settings(data_dir)
    if settings.redis_url is None and not (broker and settings.amqp_url):
        raise SettingsError(
            f"DOORBUSTER_REDIS_URL: is not set, and no `doorbuster up` runs in {data_dir} (see --data-dir)"
        )
    return settings


def _with_book(data_dir: Path) -> Settings:
    """Settings that reach the book of a running system."""
    from doorbuster.data_dir import stack_settings

    settings = stack_settings(data_dir)
    if settings.postgres_dsn is None:
        raise SettingsError(
            f"DOORBUSTER_POSTGRES_DSN: is not set, and no `doorbuster up` runs in {data_dir} (see --data-dir)"
        )
    return settings


def _serve_metrics(port: int | None) -> None:
    if port is not None:
        from prometheus_client import start_http_server

        start_http_server(port)
