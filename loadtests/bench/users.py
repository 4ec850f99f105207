"""Who asks."""

from __future__ import annotations

import time
from pathlib import Path

from doorbuster.tokens import make_token

USERS = 10_000
TOKEN_SECONDS = 24 * 3600
"""Longer than any run."""


def write_users(path: Path, jwt_secret: str) -> None:
    """A line for each user: their id and their token, for wrk.lua."""
    now_s = int(time.time())
    with path.open("w") as lines:
        for number in range(USERS):
            name = f"user-{number:05}"
            token = make_token(jwt_secret, name, tier=None, ttl_s=TOKEN_SECONDS, now_s=now_s)
            lines.write(f"{name} {token}\n")
