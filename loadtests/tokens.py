"""Who signs for the shoppers, and who for the service."""

from __future__ import annotations

import time
from pathlib import Path

from doorbuster.data_dir import stack_settings
from doorbuster.settings import Settings, SettingsError
from doorbuster.tokens import make_token
from loadtests.options import Options

TOKEN_SECONDS = 24 * 3600
"""Longer than any test."""


class SecretMissing(Exception):
    """A test cannot start. The message is one line that names the option."""


def find_secrets(options: Options) -> tuple[str, str | None]:
    """The JWT secret and the service key: as given, or else those of the stack in --data-dir."""
    jwt_secret, service_key = options.jwt_secret, options.service_key
    if not jwt_secret or not service_key:
        stack = _stack(options.data_dir)
        jwt_secret, service_key = jwt_secret or stack.jwt_secret, service_key or stack.service_key
    where = f"is not given, and no `doorbuster up` has run in {options.data_dir} (see --data-dir)"
    if not jwt_secret:
        raise SecretMissing(f"--jwt-secret: {where}")
    if options.create_campaign and not service_key:
        raise SecretMissing(f"--service-key: {where}; --no-create-campaign does without")
    return jwt_secret, service_key


def shopper_token(secret: str, user: str) -> str:
    return make_token(secret, user, tier=None, ttl_s=TOKEN_SECONDS, now_s=int(time.time()))


def _stack(data_dir: str) -> Settings:
    try:
        return stack_settings(Path(data_dir))
    except SettingsError as error:
        raise SecretMissing(str(error)) from None
