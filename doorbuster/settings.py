"""Settings: environment variables that start with DOORBUSTER_, checked once, at start."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from doorbuster.errors import Misconfigured
from reservation.redis_url import parse_redis_url

PREFIX = "DOORBUSTER_"
SECRET_CHARS_MIN = 8


class SettingsError(Misconfigured):
    """A setting is missing or malformed. The message is one line that names it."""


def _checked(url: str, *schemes: str) -> str:
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    _ = urlsplit(url).port  # raises ValueError, with the reason
    return url


def _url(*schemes: str) -> AfterValidator:
    return AfterValidator(lambda url: _checked(url, *schemes))


def _traces_url(url: str) -> str:
    # Where only the server is said, it is where every collector takes them.
    url = _checked(url, "http", "https")
    return url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1/traces"


def _amqp_urls(urls: str) -> str:
    parts = [part.strip() for part in urls.split(",")]
    for part in parts:
        _checked(part, "amqp", "amqps")
        for seconds in parse_qs(urlsplit(part).query).get("heartbeat", ()):
            if not (seconds.isascii() and seconds.isdigit()):
                raise ValueError(f"heartbeat is in whole seconds, not {seconds!r}")
    return ",".join(parts)


def _redis_url(url: str) -> str:
    parse_redis_url(url)  # raises ValueError, with the reason
    return url


def _dsn(dsn: str) -> str:
    # Imported where it is needed: it takes a second, which not every command has to wait for.
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.errors import ProgrammingError

    try:
        conninfo_to_dict(dsn)
    except ProgrammingError as error:
        raise ValueError(f"is not a PostgreSQL DSN: {str(error).strip()}") from None
    return dsn


def _secret(secret: str) -> str:
    if len(secret) < SECRET_CHARS_MIN:
        raise ValueError(f"must have at least {SECRET_CHARS_MIN} characters")
    return secret


def _service_key(key: str) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("must be printable ASCII without spaces")
    return _secret(key)


def _webhook_secret(secret: str) -> str:
    try:
        raw = base64.b64decode(secret.removeprefix("whsec_") + "==", validate=False)
    except binascii.Error:
        raw = b""
    if not secret.startswith("whsec_") or not raw:
        raise ValueError("must be whsec_ followed by base64")
    return secret


def _key_set(source: str) -> str:
    if source.startswith(("http://", "https://")):
        return source  # its issuer may be away now and back later
    import jwt

    try:
        jwt.PyJWKSet.from_json(Path(source).read_text("utf-8"))
    except (OSError, ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise ValueError(f"is neither a URL nor a file with a key set: {error}") from None
    return source


class Settings(BaseSettings):
    """Everything that a process may be told from outside."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = None
    postgres_dsn: Annotated[str, AfterValidator(_dsn)] | None = None
    amqp_url: Annotated[str, AfterValidator(_amqp_urls)] | None = None
    """Nodes of one broker, separated by commas."""
    jwt_secret: Annotated[str, AfterValidator(_secret)] | None = None
    jwks: Annotated[str, AfterValidator(_key_set)] | None = None
    service_key: Annotated[str, AfterValidator(_service_key)] | None = None
    psp_secret: Annotated[str, AfterValidator(_webhook_secret)] | None = None
    sandbox: bool | None = None
    public_url: Annotated[str, _url("http", "https")] | None = None
    """Where clients reach the gateway."""
    pay_url: Annotated[str, _url("http", "https")] | None = None
    """The provider's page for a payment, with {payment_id} in it."""
    refund_url: Annotated[str, _url("http", "https")] | None = None
    """Where the provider takes refunds."""
    notify_url: Annotated[str, _url("http", "https")] | None = None
    """Where the merchant's systems take notifications."""
    notify_secret: Annotated[str, AfterValidator(_webhook_secret)] | None = None

    redis_replicas: Annotated[int, Field(ge=0, le=10)] = 0
    """Replicas that must have a change before it is acknowledged."""
    redis_replicas_on_disk: bool = False
    """Whether they, and the server itself, must have it on disk."""
    allow_unsafe_redis: bool = False
    """Whether a Redis that evicts, or does not persist, is used all the same."""

    outbox_events_max: Annotated[int, Field(ge=1)] = 5_000_000
    """Events that may wait for the book before new reservations are refused. Of reservations that were made
    together each takes some 50 bytes of Redis; any other takes a whole record's."""

    traces_url: Annotated[str, AfterValidator(_traces_url)] | None = None
    """Where a collector takes traces, by OTLP over HTTP."""
    traces_sample: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The share of reservations that are traced, from the request to the settled row."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def need(self, *names: str) -> None:
        """Raises SettingsError for the first of these that is not set."""
        for name in names:
            if getattr(self, name) is None:
                raise SettingsError(f"{PREFIX}{name.upper()}: is not set")

    def environment(self) -> dict[str, str]:
        """The environment variables that give these settings to another process."""
        found = self.model_dump(exclude_none=True)
        return {
            PREFIX + name.upper(): str(int(value)) if isinstance(value, bool) else str(value)
            for name, value in found.items()
        }


def read_settings(**given: Any) -> Settings:
    """Settings from the environment; `given` ones, where not None, come first. Raises SettingsError."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).upper() if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{PREFIX}{name}: {message}") from None
