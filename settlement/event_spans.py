"""The spans of events, on their way from the outbox to their rows. What was done to a batch is told of for
each of its reservations that is sampled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from reservation.envelope import Envelope, events_in
from reservation.ids import DIGEST_CHARS, ReservationId
from reservation.tracing import MADE, Attributes, Span, SpanKind, Tracer, about, span_id_of, trace_id_of

SampledEvent = tuple[ReservationId, int, int]
"""Whose event it is, the version that it is about, and when that was made, in ms since 1970."""


def tell_of_batch(
    tracer: Tracer,
    name: str,
    kind: SpanKind,
    envelopes: Sequence[Envelope],
    started_ns: int,
    attributes: Attributes,
) -> None:
    """These have just been passed on, or settled, all at once."""
    ended_ns = time.time_ns()
    events = sum(map(events_in, envelopes))
    for envelope in envelopes:
        for reservation_id, version, made_ms in sampled(envelope, tracer.below):
            tracer.tell(
                Span(
                    name,
                    kind,
                    trace_id_of(reservation_id),
                    started_ns,
                    {
                        **about(reservation_id),
                        **attributes,
                        "doorbuster.event": str(envelope.get("type")),
                        "doorbuster.version": version,
                        "doorbuster.batch.events": events,
                        "doorbuster.lag_ms": max(0, ended_ns // 1_000_000 - made_ms),
                    },
                    span_id_of(reservation_id, version),
                    end_ns=ended_ns,
                )
            )


def sampled(envelope: Envelope, below: str) -> Iterator[SampledEvent]:
    """Those of an envelope's reservations that are sampled. What is malformed is for others to say."""
    who, record = envelope.get("who"), envelope.get("record")
    if isinstance(who, list):
        campaign, at = envelope.get("campaign"), envelope.get("at")
        if isinstance(campaign, str) and isinstance(at, int):
            for digest in who[::2]:
                if isinstance(digest, str) and digest < below:
                    yield ReservationId(campaign, digest), MADE, at
    elif isinstance(record, dict):
        name, version, at = envelope.get("id"), record.get("version"), record.get("updated_at")
        if isinstance(name, str) and isinstance(version, int) and isinstance(at, int):
            reservation_id = ReservationId.parse(name) if name[-DIGEST_CHARS:] < below else None
            if reservation_id is not None:
                yield reservation_id, version, at
