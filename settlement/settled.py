"""What was settled, counted by campaign."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import orjson

from reservation.envelope import Envelope, events_in
from reservation.ids import Stage
from reservation.kinds import KINDS
from reservation.steps import Event
from settlement.metrics import SETTLED_EVENTS, SETTLED_PAYMENTS

CAMPAIGNS_MAX = 1_000
"""That a process counts by name: those that something was settled of last."""
NO_CAMPAIGN = ""
"""Of main orders, which entitle in many."""
MAIN_ORDER = "main_order"
_STAGES = frozenset(Stage)
_STEPS = (
    Event.RESERVED,
    Event.OFFERED,
    Event.PAYMENT_SUCCEEDED,
    Event.CANCELLED,
    Event.EXPIRED,
    Event.FORFEITED,
)
"""What every campaign is counted of from its beginning."""
_counted: OrderedDict[str, None] = OrderedDict()
"""Campaigns, the one that was settled of last at the end."""


def count(envelopes: Sequence[Envelope]) -> None:
    """Count events that are in the book."""
    events, payments = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for envelope in envelopes:
        campaign, kind, event = _labels(envelope)
        if event == "campaign_changed":
            begin(campaign, kind)
        events[campaign, kind, event] += events_in(envelope)
        if event == Event.PAYMENT_SUCCEEDED and envelope["data"].get("stage") in _STAGES:
            payments[campaign, kind, envelope["data"]["stage"]] += 1
    for campaign in {campaign for campaign, _, _ in events}:
        _counted[campaign] = None
        _counted.move_to_end(campaign)
    for labels, times in events.items():
        SETTLED_EVENTS.labels(*labels).inc(times)
    for labels, times in payments.items():
        SETTLED_PAYMENTS.labels(*labels).inc(times)
    # The library cannot take a series out of a file that processes share; there, the gateway leaves it out.
    while len(_counted) > CAMPAIGNS_MAX and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        campaign, _ = _counted.popitem(last=False)
        SETTLED_EVENTS.remove_by_labels({"campaign": campaign})
        SETTLED_PAYMENTS.remove_by_labels({"campaign": campaign})


def begin(campaign: str, kind: str) -> None:
    """Count a campaign from nothing: what begins with a thousand has not risen by them for who asks how much
    it rose."""
    if campaign not in _counted:
        _counted[campaign] = None
        _counted.move_to_end(campaign, last=False)  # nothing was settled of it yet
    for step in _STEPS:
        SETTLED_EVENTS.labels(campaign, kind, step)
    for stage in KINDS[kind].stages if kind in KINDS else ():
        SETTLED_PAYMENTS.labels(campaign, kind, stage)


def _labels(envelope: Envelope) -> tuple[str, str, str]:
    """Campaign, kind and type."""
    event = str(envelope["type"])
    if event == "main_order_changed":
        return NO_CAMPAIGN, MAIN_ORDER, event
    if "who" in envelope:
        return envelope["campaign"], _kind(envelope["terms"]), event
    if "record" in envelope:
        return envelope["id"].rpartition(".")[0], _kind(envelope["record"]), event
    return envelope["id"], str(envelope["document"].get("kind", "")), event


def _kind(made: dict[str, Any]) -> str:
    kind: str = orjson.loads(made["facts"])["k"]
    return kind
