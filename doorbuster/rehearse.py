"""`doorbuster rehearse`: whether this deployment will hold, said before the day."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from doorbuster.apply import read_campaigns
from doorbuster.data_dir import STACK, read_private, stack_settings
from doorbuster.errors import Misconfigured
from doorbuster.settings import SettingsError
from doorbuster.supervisor import end_as_after_ctrl_c
from doorbuster.tokens import make_token
from reservation.validation import FieldError, Invalid

if TYPE_CHECKING:
    from loadtests.rehearsal.rehearse import Rehearsal, Rehearsed, Say

TOKEN_SECONDS = 24 * 3600
"""Longer than any rehearsal."""


class CannotRehearse(Misconfigured):
    """The rehearsal cannot begin. The message is one line."""


def plan_rehearsal(
    file: Path,
    data_dir: Path,
    *,
    host: str | None,
    shoppers: int,
    peak: float,
    steps: int,
    seconds: float,
    p99_ms: float,
) -> Rehearsal:
    """What is to be rehearsed, and where. Raises Invalid, SettingsError, CannotRehearse."""
    from loadtests.rehearsal.rehearse import Rehearsal
    from loadtests.rehearsal.verdict import Limits

    campaigns = read_campaigns(file)
    if len(campaigns) > 1:
        raise Invalid(FieldError(str(file), f"holds {len(campaigns)} campaigns; rehearse one at a time"))
    settings = stack_settings(data_dir)
    running = read_private(data_dir / STACK)
    found = host or running.get("url")
    if found is None:
        raise CannotRehearse(
            f"--host is not given, and no `doorbuster up` runs in {data_dir} (see --data-dir)"
        )
    if settings.jwt_secret is None:
        raise SettingsError(
            "DOORBUSTER_JWT_SECRET: is not set, and only with an HS256 secret can shoppers' tokens be signed"
        )
    settings.need("service_key")
    secret = settings.jwt_secret

    def sign(user: str, tier: str | None) -> str:
        return make_token(secret, user, tier=tier, ttl_s=TOKEN_SECONDS, now_s=int(time.time()))

    try:
        return Rehearsal(
            document=campaigns[0].to_json(),
            host=found.rstrip("/"),
            service_key=settings.service_key or "",
            sign=sign,
            shoppers=shoppers,
            peak=peak,
            steps=steps,
            seconds=seconds,
            limits=Limits(p99_ms=p99_ms),
            up_pid=running.get("pid") if host in (None, running.get("url")) else None,
        )
    except ValueError as error:
        raise CannotRehearse(str(error)) from None


async def run_rehearse(rehearsal: Rehearsal, say: Say) -> Rehearsed:
    """Raises CannotRehearse."""
    from loadtests.rehearsal.rehearse import rehearse
    from loadtests.rehearsal.service import ServiceError

    # Told to end, it closes its copies as after a Ctrl-C: shoppers see them until then.
    end_as_after_ctrl_c()
    try:
        return await rehearse(rehearsal, say)
    except ServiceError as error:
        raise CannotRehearse(str(error)) from None
