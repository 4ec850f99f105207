"""Identifiers that say where they belong, so that nothing has to be looked up to route them.

A reservation's id is derived from campaign, user and idempotency key: a retry *is* the same
reservation. A payment's id is derived from its reservation and stage, and so is a refund's.
"""

from __future__ import annotations

import re
from base64 import b32encode
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

_DIGEST_BYTES = 15  # 120 bits: 24 characters of base32, without padding
_CAMPAIGN = r"[a-z0-9-]{1,64}"
_DIGEST = r"[a-z2-7]{24}"
_RESERVATION = re.compile(rf"({_CAMPAIGN})\.({_DIGEST})")
_PAYMENT = re.compile(rf"({_CAMPAIGN}\.{_DIGEST})\.(([a-z]+)(?:-([2-9]|[1-9]\d))?)")


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
        # Lengths first: "ab" + "c" and "a" + "bc" must not be the same reservation.
        user_bytes, key_bytes = user.encode(), idempotency_key.encode()
        named = b"%d:%b%d:%b" % (len(user_bytes), user_bytes, len(key_bytes), key_bytes)
        digest = blake2b(named, digest_size=_DIGEST_BYTES, key=campaign.encode()).digest()
        return cls(campaign, b32encode(digest).decode().lower())

    @classmethod
    def parse(cls, text: str) -> ReservationId | None:
        """The id that `text` spells, or None when it spells none."""
        match = _RESERVATION.fullmatch(text)
        return cls(match[1], match[2]) if match else None


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
