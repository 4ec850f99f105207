"""The data directory of `doorbuster up`: who has it, the secrets that were made for it, and how to reach what
runs there."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doorbuster.errors import Misconfigured
from doorbuster.settings import Settings, read_settings

STACK = "stack.json"
"""In the data directory, while a stack runs there: how to reach it."""
_SECRETS = "secrets.json"
"""In the data directory: the secrets that were made for it."""


class StackError(Misconfigured):
    """The stack cannot run. The message is one line."""


def stack_settings(data_dir: Path) -> Settings:
    """The settings to reach the stack that runs in `data_dir`; what the environment says comes first."""
    found = {**read_private(data_dir / _SECRETS), **read_private(data_dir / STACK).get("settings", {})}
    return read_settings(**{**found, **read_settings().model_dump(exclude_unset=True)})


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Have the data directory to ourselves. Raises StackError."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        opened = (data_dir / "lock").open("w")
    except OSError as error:
        raise StackError(f"cannot keep data in {data_dir}: {error.strerror}") from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"{data_dir} is in use by another doorbuster up") from None
        yield


def read_private(path: Path) -> dict[str, Any]:
    """What write_private wrote; nothing where it has not. Raises StackError."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StackError(f"{path} cannot be read: {error}") from None
    return dict(found)


def write_private(path: Path, found: Any) -> None:
    # Beside it, then in its place: secrets are never half written.
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(found, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def with_secrets(settings: Settings, data_dir: Path) -> Settings:
    """The settings, with random secrets where none are given; the same ones at every start."""
    found = read_private(data_dir / _SECRETS)
    # What was made by an older version lacks what has been added since.
    kept = {
        "jwt_secret": secrets.token_urlsafe(48),
        "service_key": f"dbk_{secrets.token_urlsafe(32)}",
        "psp_secret": _webhook_secret(),
        "notify_secret": _webhook_secret(),
        **found,
    }
    if kept != found:
        write_private(data_dir / _SECRETS, kept)
    if settings.jwks is not None:
        kept.pop("jwt_secret", None)
    return read_settings(**{**kept, **settings.model_dump(exclude_none=True)})


def _webhook_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()
