"""The answer to a granted reservation, made beforehand: only who, which and when are filled in."""

from __future__ import annotations

import re
from functools import lru_cache

import orjson
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from gateway.views import reservation_view
from reservation.campaign import Campaign, rfc3339
from reservation.ids import ReservationId
from reservation.kernel import Terms
from reservation.record import Reservation
from reservation.reserver import made_on
from reservation.steps import due_by_ms

_FAR_AHEAD_MS = 2**47
_HEAD = (
    "HTTP/1.1 201 Created\r\nLocation: /v1/reservations/{id}\r\nContent-Type: application/json\r\n"
    "Content-Length: ~length~\r\nDate: ~date~\r\nServer: {server}\r\n\r\n"
)
_SLOT = re.compile(rb"~[a-z]+~")
"""Where something is filled in. Nothing that a merchant names has such a sign in it."""
_SLOTS = [b"~digest~", b"~length~", b"~date~", b"~digest~", b"~user~", b"~by~", b"~at~", b"~at~"]
"""In the order in which a response has them."""


@lru_cache(maxsize=1_024)
def _at(ms: int) -> bytes:
    # All that one script run made have the same.
    return rfc3339(ms).encode()


class Granted:
    """The answers to reservations on these terms."""

    def __init__(self, terms: Terms, campaign: Campaign) -> None:
        example = Reservation.of(
            ReservationId(terms.campaign, "~digest~"), made_on(terms).record("~user~", _FAR_AHEAD_MS)
        )
        view = reservation_view(example, campaign)
        view["created_at"] = view["updated_at"] = "~at~"
        view["due"]["by"] = "~by~"
        body = orjson.dumps(view).replace(b'"~user~"', b"~user~")
        head = _HEAD.format(id=example.id, server=SERVER_SOFTWARE).encode()
        if _SLOT.findall(head + body) != _SLOTS:
            raise ValueError(f"slots are not where they are filled in: {body!r}")
        self._response = _SLOT.sub(b"%b", (head + body).replace(b"%", b"%%"))
        self._hold_ms = terms.hold_ms
        self._due_by_max_ms = due_by_ms(example, campaign)
        self._length = 0  # of the body, without the user
        _, _, sample = self.response("." * 16, b"", 0).partition(b"\r\n\r\n")
        self._length = len(sample)

    def response(self, digest: str, user: bytes, now_ms: int) -> bytes:
        """The whole response. `user` is JSON already."""
        name, at = digest.encode(), _at(now_ms)
        by = _at(min(now_ms + self._hold_ms, self._due_by_max_ms))
        length = b"%d" % (self._length + len(user))
        return self._response % (name, length, rfc822_formatted_time().encode(), name, user, by, at, at)
