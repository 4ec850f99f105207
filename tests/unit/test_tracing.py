"""Whoever has a reservation in hand knows its trace, and whether anybody keeps it."""

from __future__ import annotations

import random
import string

import pytest

from reservation.envelope import Envelope
from reservation.ids import DIGEST_CHARS, ReservationId, digest_of
from reservation.record import Record
from reservation.tracing import (
    MADE,
    NO_TRACER,
    Operation,
    Span,
    SpanKind,
    begin,
    below,
    concerns,
    current,
    operation,
    read_traceparent,
    span_id_of,
    trace_id_of,
)
from settlement.event_spans import sampled, tell_of_batch

DIGESTS = [digest_of("sale", f"user-{n}", "key") for n in range(20_000)]
SOME = ReservationId("sale", DIGESTS[0])
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Kept:
    """A tracer that keeps what it is told."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.below = below(ratio)
        self.spans: list[Span] = []

    def tell(self, span: Span) -> None:
        self.spans.append(span)


@pytest.mark.parametrize("ratio", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_the_sampled_share_is_about_the_ratio(ratio: float) -> None:
    share = sum(digest < below(ratio) for digest in DIGESTS) / len(DIGESTS)
    assert abs(share - ratio) < 5 * (ratio * (1 - ratio) / len(DIGESTS)) ** 0.5


def test_none_are_sampled_at_0_and_all_at_1() -> None:
    assert below(0) == ""
    assert not any(digest < below(0) for digest in DIGESTS)
    assert all(digest < below(1) for digest in [*DIGESTS, "z" * DIGEST_CHARS])


def test_what_is_sampled_at_a_ratio_is_sampled_at_every_greater_one() -> None:
    ratios = sorted(random.Random(1).random() ** 3 for _ in range(200))
    bounds = [below(ratio) for ratio in ratios]
    assert bounds == sorted(bounds)


def test_the_ids_of_a_reservations_spans_are_derived_and_differ() -> None:
    ids = {trace_id_of(ReservationId("sale", digest)) for digest in DIGESTS[:1000]}
    ids |= {span_id_of(ReservationId("sale", digest), n) for digest in DIGESTS[:100] for n in range(1, 11)}
    assert len(ids) == 2000
    assert trace_id_of(SOME) == trace_id_of(ReservationId(*SOME)) < 2**128
    assert span_id_of(SOME, MADE) < 2**64


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        CALLER + "\n",
        CALLER[:-1],
        "x" * 10_000,
    ],
)
def test_what_is_no_traceparent_is_nobody(text: str | None) -> None:
    assert read_traceparent(text) is None
    asked = Operation(caller=text)
    assert asked.over("x", SpanKind.SERVER, {}).parent_id == 0
    assert 0 < asked.trace_id < 2**128


def test_no_caller_can_have_a_request_sampled() -> None:
    tracer = Kept(1e-12)
    assert not any(Operation(caller=CALLER).is_sampled(tracer) for _ in range(1000))
    assert not Operation(SOME, caller=CALLER).is_sampled(NO_TRACER)
    assert not Operation(caller=CALLER).is_sampled(NO_TRACER)


def test_other_requests_are_sampled_by_chance_and_once() -> None:
    tracer = Kept(0.1)
    asked = [Operation() for _ in range(5000)]
    first = [one.is_sampled(tracer) for one in asked]
    assert 300 < sum(first) < 700
    assert first == [one.is_sampled(tracer) for one in asked]


def test_a_caller_is_the_parent_of_a_request_and_linked_to_a_reservations_trace() -> None:
    caller = read_traceparent(CALLER)
    assert caller is not None
    other = Operation(caller=CALLER).over("x", SpanKind.SERVER, {})
    assert (other.trace_id, other.parent_id, other.link) == (*caller, None)
    own = Operation(SOME, caller=CALLER).over("x", SpanKind.SERVER, {})
    assert (own.trace_id, own.parent_id, own.link) == (trace_id_of(SOME), span_id_of(SOME, MADE), caller)
    assert Operation(SOME, 0).over("x", SpanKind.SERVER, {}).parent_id == 0


def test_a_step_is_told_of_when_it_is_over_however_it_ends() -> None:
    tracer = Kept(1)
    request = begin()
    with operation(tracer, "fine", SpanKind.INTERNAL, SOME, 3) as step:
        assert current() is step
        step.outcome = "taken"
    with pytest.raises(ValueError, match="no"), operation(tracer, "bad", SpanKind.INTERNAL, SOME):
        raise ValueError("no")
    with operation(tracer, "about nothing", SpanKind.INTERNAL, None):
        pass
    assert current() is request
    assert [(span.name, span.failed) for span in tracer.spans] == [("fine", False), ("bad", True)]
    assert tracer.spans[0].parent_id == span_id_of(SOME, 3)
    assert tracer.spans[0].attributes["doorbuster.outcome"] == "taken"


def test_what_a_request_is_about_is_found_out_on_the_way() -> None:
    request = begin(CALLER)
    before = request.trace_id
    concerns(SOME, after=0)
    assert (before, request.trace_id) == (int(CALLER[3:35], 16), trace_id_of(SOME))


def made_together(count: int) -> Envelope:
    who = [part for digest in DIGESTS[:count] for part in (digest, "ann")]
    return {"type": "reserved", "campaign": "sale", "at": 1_000, "who": who, "terms": {}, "data": {}}


def moved(version: int) -> Envelope:
    record = Record("held", version, "ann", "phone", 1, (), 1_000, 2_000, 0, "", "{}")._asdict()
    return {"type": "cancelled", "id": str(SOME), "record": record, "data": {}}


def test_of_a_batch_only_the_sampled_are_told_of_each_below_the_run_that_made_its_version() -> None:
    tracer = Kept(0.01)
    tell_of_batch(tracer, "settle", SpanKind.CONSUMER, [made_together(5_000)], 1, {})
    expected = [digest for digest in DIGESTS[:5_000] if digest < tracer.below]
    assert 20 < len(expected) < 90
    assert [span.trace_id for span in tracer.spans] == [
        trace_id_of(ReservationId("sale", digest)) for digest in expected
    ]
    assert all(span.attributes["doorbuster.batch.events"] == 5_000 for span in tracer.spans)
    everything = Kept(1)
    tell_of_batch(everything, "settle", SpanKind.CONSUMER, [moved(4)], 1, {})
    (span,) = everything.spans
    assert (span.trace_id, span.parent_id) == (trace_id_of(SOME), span_id_of(SOME, 4))
    assert "ann" not in "".join(map(repr, everything.spans + tracer.spans))


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"type": "campaign_changed", "id": "sale", "revision": 1},
        {"who": "ann", "campaign": "sale", "at": 1},
        {"who": [1, 2], "campaign": "sale", "at": 1},
        {"who": ["x" * 16], "campaign": None, "at": 1},
        {"id": 7, "record": {"version": 1, "updated_at": 1}},
        {"id": "sale", "record": {"version": 1, "updated_at": 1}},
        {"id": str(SOME), "record": {"version": "1"}},
        {"id": str(SOME), "record": []},
    ],
)
def test_what_is_no_event_of_a_reservation_is_passed_over(envelope: Envelope) -> None:
    assert list(sampled(envelope, below(1))) == []


def test_signs_of_a_digest_are_what_is_counted_on() -> None:
    signs = set("".join(DIGESTS))
    assert signs == set(string.ascii_letters + string.digits + "-_")
    assert {len(digest) for digest in DIGESTS} == {DIGEST_CHARS}
