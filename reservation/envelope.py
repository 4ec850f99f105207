"""Events as they travel from the store to the book.

An envelope is JSON, and holds one event or many:

- what happened to a reservation: {type, id, record, data}; record has the fields of record.Record;
- reservations that were made on the same terms at the same moment: {type, campaign, at, terms, who, data};
  terms has the fields of record.MadeOn, who is flat: digest, user, digest, user, ...;
- a main order: {type, id, version, body, at};
- a campaign: {type, id, revision, status, document, at}.

Those who were made together stay together all the way: what they have in common is sent, read and
worked out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reservation.record import MadeOn

Envelope = dict[str, Any]


def events_in(envelope: Envelope) -> int:
    """How many events it holds."""
    who = envelope.get("who")
    return len(who) // 2 if isinstance(who, list) else 1


def halves(envelopes: Sequence[Envelope]) -> tuple[Sequence[Envelope], Sequence[Envelope]] | None:
    """The same events in two parts; None when there is only one."""
    if len(envelopes) > 1:
        middle = len(envelopes) // 2
        return envelopes[:middle], envelopes[middle:]
    (only,) = envelopes
    who = only.get("who")
    if not isinstance(who, list) or len(who) <= 2:
        return None
    middle = max(2, len(who) // 4 * 2)
    return [only | {"who": who[:middle]}], [only | {"who": who[middle:]}]


def singly(envelope: Envelope) -> list[Envelope]:
    """The same events, an envelope each. What cannot be taken apart stays as it is."""
    if "who" not in envelope:
        return [envelope]
    try:
        campaign, who, at = envelope["campaign"], envelope["who"], envelope["at"]
        terms = MadeOn(**envelope["terms"])
        return [
            {
                "type": envelope["type"],
                "id": f"{campaign}.{digest}",
                "record": terms.record(user, at)._asdict(),
                "data": envelope["data"],
            }
            for digest, user in zip(who[::2], who[1::2], strict=True)
        ]
    except (KeyError, TypeError, ValueError):
        return [envelope]
