"""Keeping traces costs no more than it may, whatever the collector does and whoever has what sampled."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from doorbuster import traces
from doorbuster.traces import DROPPED, SPANS_PER_SECOND_MAX, OtlpTracer
from reservation.tracing import Span, SpanKind, SpanLink, new_id
from tests.servers import free_port
from tests.stack import eventually
from tests.traces.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def span(**changes: object) -> Span:
    given = {"name": "x", "kind": SpanKind.INTERNAL, "trace_id": new_id(128), "start_ns": 1, "attributes": {}}
    return Span(**{**given, **changes})  # type: ignore[arg-type]


def dropped(reason: str) -> float:
    return DROPPED.labels(reason)._value.get()


async def test_a_span_arrives_as_it_was_told(collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, 1.0, "worker")
    told = span(
        name="settle",
        kind=SpanKind.CONSUMER,
        parent_id=5,
        link=SpanLink(7, 8),
        failed=True,
        attributes={"doorbuster.version": 2, "doorbuster.outcome": "taken"},
    )
    tracer.tell(told)
    await tracer.close()
    (seen,) = collector.spans
    assert (seen.trace_id, seen.span_id, seen.parent_id) == (told.trace_id, told.span_id, 5)
    assert (seen.name, seen.kind, seen.role, seen.failed) == ("settle", "SPAN_KIND_CONSUMER", "worker", True)
    assert (seen.start_ns, seen.end_ns) == (told.start_ns, told.end_ns)
    assert (seen.attributes, seen.links) == (told.attributes, [(7, 8)])


async def test_a_collector_that_is_away_costs_neither_time_nor_more_than_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "CLOSE_SECONDS_MAX", 0.5)
    tracer = OtlpTracer(f"http://127.0.0.1:{free_port()}/v1/traces", 1.0, "gateway")
    before = dropped("not_taken")
    with capture_logs() as logs:
        longest = 0.0
        for _ in range(100):
            started = time.perf_counter()
            tracer.tell(span())
            longest = max(longest, time.perf_counter() - started)
        started = time.monotonic()
        await tracer.close()
    assert longest < 0.1
    assert time.monotonic() - started < traces.CLOSE_SECONDS_MAX + 1
    assert dropped("not_taken") - before == 100
    assert [line["event"] for line in logs] in ([], ["traces_not_taken"])


async def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setattr(traces, "CLOSE_SECONDS_MAX", 0.5)
        tracer = OtlpTracer(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/traces", 1.0, "gateway")
        tracer.tell(span())
        started = time.monotonic()
        await tracer.close()
        assert time.monotonic() - started < traces.CLOSE_SECONDS_MAX + 1


async def test_spans_that_are_too_many_are_counted_and_not_kept(collector: Collector) -> None:
    tracer, before, second = (
        OtlpTracer(collector.url, 1.0, "gateway"),
        dropped("too_many"),
        int(time.monotonic()),
    )
    for _ in range(3 * SPANS_PER_SECOND_MAX):
        tracer.tell(span())
    await tracer.close()
    seconds = int(time.monotonic()) - second + 1
    assert len(collector.spans) <= seconds * SPANS_PER_SECOND_MAX
    assert len(collector.spans) + dropped("too_many") - before == 3 * SPANS_PER_SECOND_MAX


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    monkeypatch.setattr(traces, "WAITING_MAX", 50)
    monkeypatch.setattr(traces, "BATCH_MAX", 100)
    monkeypatch.setattr(traces, "SEND_SECONDS", 60.0)
    tracer, before = OtlpTracer(collector.url, 1.0, "gateway"), dropped("queue_full")
    for _ in range(80):
        tracer.tell(span())
    await tracer.close()
    assert (len(collector.spans), dropped("queue_full") - before) == (50, 30)


async def test_when_the_collector_is_back_that_is_said_too(
    monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    monkeypatch.setattr(traces, "SEND_SECONDS", 0.05)
    monkeypatch.setattr(traces, "ANSWER_SECONDS_MAX", 0.2)
    collector.hangs = True
    with capture_logs() as logs:
        tracer = OtlpTracer(collector.url, 1.0, "gateway")

        async def lines() -> list[str]:
            tracer.tell(span())
            await asyncio.sleep(0.05)
            return [line["event"] for line in logs]

        await eventually(lines, lambda found: found == ["traces_not_taken"])
        collector.hangs = False
        await eventually(lines, lambda found: found == ["traces_not_taken", "traces_taken"])
        await tracer.close()
