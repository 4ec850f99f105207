"""Every answer the kernel can give, named once.

The same word is the Lua outcome, the enum member, the metric label, the problem's `code` and the
heading in docs/problems.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a wish to reserve, or of a move. Listed in order of precedence."""

    REPLAYED = "replayed"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    CONFLICT = "conflict"
    RESERVATION_NOT_FOUND = "reservation_not_found"
    STORE_UNAVAILABLE = "store_unavailable"
    STALE = "stale"
    CAMPAIGN_NOT_FOUND = "campaign_not_found"
    OFFER_NOT_FOUND = "offer_not_found"
    ENDED = "ended"
    NOT_STARTED = "not_started"
    PAYMENT_WINDOW_CLOSED = "payment_window_closed"
    PAUSED = "paused"
    NOT_ELIGIBLE = "not_eligible"
    QUOTA_EXCEEDED = "quota_exceeded"
    SOLD_OUT = "sold_out"
    WRONG_STATE = "wrong_state"
    MOVED = "moved"


class ConfigureOutcome(StrEnum):
    """What became of a change to a campaign. Listed in order of precedence."""

    CONFLICT = "conflict"
    BELOW_USED = "below_used"
    CONFIGURED = "configured"


class RestoreOutcome(StrEnum):
    """What became of what the book has and the store had lost. Listed in order of precedence."""

    ABSENT = "absent"
    UNCHANGED = "unchanged"
    OVER_CAP = "over_cap"
    RESTORED = "restored"


class AdjustOutcome(StrEnum):
    """What became of counters that were to be moved by what they differ. Listed in order of precedence."""

    ABSENT = "absent"
    CONFLICT = "conflict"  # others have adjusted them since the snapshot
    ADJUSTED = "adjusted"


class RestateOutcome(StrEnum):
    """What became of what the store has and the book had not. Listed in order of precedence."""

    ABSENT = "absent"
    RESTATED = "restated"


class PlaceOutcome(StrEnum):
    """What became of a wish to stand in line, besides the refusals that a move has too."""

    PLACED = "placed"
    LEFT = "left"
    ABSENT = "absent"


class GrantOutcome(StrEnum):
    """What became of caps that a main order grants. Listed in order of precedence."""

    STALE = "stale"
    OUTDATED = "outdated"
    GRANTED = "granted"


class RankOutcome(StrEnum):
    """Which ranking was read."""

    LIVE = "live"
    FINAL = "final"


class OrderOutcome(StrEnum):
    """What became of a change to a main order. Listed in order of precedence."""

    STORE_UNAVAILABLE = "store_unavailable"
    CONFLICT = "conflict"
    RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was understood and not granted. Nothing was changed."""

    code: Outcome
    detail: str
    opens_at_ms: int | None = None
    retry_after_s: int | None = None
    reason: str | None = None
    """Why, where the code alone leaves several ways open."""


class Fault(Exception):
    """Something is broken, as opposed to refused."""


class StoreUnavailable(Fault):
    """The store is away, or does not have what it must have. Try again later.

    `sent`: a command was on its way, and may have been carried out.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class Contended(Fault):
    """The reservation kept changing under this request. Try again."""
