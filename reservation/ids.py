"""Identifiers that say where they belong, so that nothing has to be looked up to route them.

A reservation's id is derived from campaign, user and idempotency key: a retry *is* the same
reservation. A payment's id is derived from its reservation and stage, and so is a refund's.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

DIGEST_CHARS = 16
"""96 bits. The store keeps them in several places for each reservation."""
CAMPAIGN_ID = r"[a-z0-9-]{1,64}"
"""A regular expression: what a campaign may be called."""
_DIGEST = rf"[A-Za-z0-9_-]{{{DIGEST_CHARS}}}"
_RESERVATION = re.compile(rf"({CAMPAIGN_ID})\.({_DIGEST})")
_PAYMENT = re.compile(rf"({CAMPAIGN_ID}\.{_DIGEST})\.(([a-z]+)(?:-([2-9]|[1-9]\d))?)")


class Stage(StrEnum):
    """Which of a reservation's payments."""

    FULL = "full"
    DEPOSIT = "deposit"
    BALANCE = "balance"


class ReservationId(NamedTuple):
    campaign: str
    digest: str

    def __str__(self) -> str:
        return f"{self.campaign}.{self.digest}"

    @classmethod
    def derive(cls, campaign: str, user: str, idempotency_key: str) -> ReservationId:
        """The id of the one reservation that this user makes in this campaign with this key."""
        return cls(campaign, digest_of(campaign, user, idempotency_key))

    @classmethod
    def parse(cls, text: str) -> ReservationId | None:
        """The id that `text` spells, or None when it spells none."""
        match = _RESERVATION.fullmatch(text)
        return cls(match[1], match[2]) if match else None


def is_campaign_id(text: str) -> bool:
    """Whether a campaign may be called so. What comes from outside may be anything."""
    return re.fullmatch(CAMPAIGN_ID, text) is not None


def digest_of(campaign: str, user: str, idempotency_key: str) -> str:
    """What a reservation's id has besides its campaign."""
    # The length first: "ab" + "c" and "a" + "bc" must not be the same reservation.
    named = f"{len(user)}:{user}{idempotency_key}".encode()
    digest = blake2b(named, digest_size=DIGEST_CHARS * 3 // 4, key=campaign.encode()).digest()
    return urlsafe_b64encode(digest).decode()


def numbered(name: str, number: int) -> str:
    """`name` for the first of a sort, name-2 for the second, and so on."""
    return str(name) if number == 1 else f"{name}-{number}"


class PaymentId(NamedTuple):
    reservation: ReservationId
    name: str
    """The stage; with a number from the second payment of a stage on: deposit-2."""

    def __str__(self) -> str:
        return f"{self.reservation}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> PaymentId | None:
        match = _PAYMENT.fullmatch(text)
        reservation = ReservationId.parse(match[1]) if match else None
        if match is None or reservation is None or match[3] not in set(Stage):
            return None
        return cls(reservation, match[2])
