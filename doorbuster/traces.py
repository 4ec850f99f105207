"""Traces by OTLP. Imported only where they are on: OpenTelemetry takes a fifth of a second to import."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from prometheus_client import Counter

from reservation import tracing
from reservation.tracing import Span

SPANS_PER_SECOND_MAX = 500
"""Of one process. Who reserves chooses the key, and so whether that is sampled: it must not cost us more."""
WAITING_MAX = 2_048
"""Spans that may wait for the collector."""
BATCH_MAX = 256
SEND_SECONDS = 1.0
"""From one sending to the next, where there are few."""
ANSWER_SECONDS_MAX = 5.0
"""For a collector to take a batch, with all that is tried again."""
CLOSE_SECONDS_MAX = 2.0
SPANS = Counter("doorbuster_trace_spans_total", "Spans that the collector took.")
DROPPED = Counter(
    "doorbuster_trace_spans_dropped_total",
    "Spans that were not kept: too_many in a second, queue_full, or not_taken by the collector.",
    ["reason"],
)
_KINDS = {kind: SpanKind[kind.name] for kind in tracing.SpanKind}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_log = structlog.get_logger(__name__)


class OtlpTracer:
    """Sends spans to a collector, from a thread of its own."""

    def __init__(self, url: str, ratio: float, role: str) -> None:
        self.ratio = ratio
        self.below = tracing.below(ratio)
        release = version("doorbuster")
        who = {
            "service.name": "doorbuster",
            "service.version": release,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            "doorbuster.role": role,
        }
        self._ids = _Given()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what we are told of is sampled
            resource=Resource.create(who),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._exporter = _Counting(OTLPSpanExporter(url, timeout=ANSWER_SECONDS_MAX))
        # Its queue is longer than what we let in: it never has to drop anything, and to say so.
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=2 * WAITING_MAX,
                schedule_delay_millis=SEND_SECONDS * 1000,
                max_export_batch_size=BATCH_MAX,
            )
        )
        self._tracer = self._provider.get_tracer("doorbuster", release)
        self._told = 0
        self._second, self._in_second = 0, 0

    def tell(self, span: Span) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > SPANS_PER_SECOND_MAX:
            DROPPED.labels("too_many").inc()
        elif self._told - self._exporter.sent >= WAITING_MAX:
            DROPPED.labels("queue_full").inc()
        else:
            self._told += 1
            self._keep(span)

    async def close(self) -> None:
        """Send what there is, if the collector takes it in time."""
        # A daemon: where a collector hangs, the process ends all the same.
        sending = threading.Thread(target=self._provider.shutdown, name="last traces", daemon=True)
        sending.start()
        until = time.monotonic() + CLOSE_SECONDS_MAX
        while sending.is_alive() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if sending.is_alive():
            self._exporter.given_up = True
            DROPPED.labels("not_taken").inc(self._told - self._exporter.sent)

    def _keep(self, span: Span) -> None:
        self._ids.trace_id, self._ids.span_id = span.trace_id, span.span_id
        parent = Context()
        if span.parent_id:
            parent = set_span_in_context(NonRecordingSpan(_context(span.trace_id, span.parent_id)), parent)
        kept = self._tracer.start_span(
            span.name,
            parent,
            _KINDS[span.kind],
            span.attributes,
            [Link(_context(*span.link))] if span.link is not None else (),
            start_time=span.start_ns,
        )
        if span.failed:
            kept.set_status(StatusCode.ERROR)
        kept.end(span.end_ns)


class _Given(IdGenerator):
    """The ids of the span that is being kept."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Counting(SpanExporter):
    """Counts what became of spans, and says when the collector goes away and when it is back."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._away = False
        self.sent = 0
        """Spans that do not wait any more."""
        self.given_up = False
        """Those that still wait have been counted."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self.sent += len(spans)
        away = result is not SpanExportResult.SUCCESS
        if self.given_up:
            return result
        if away:
            DROPPED.labels("not_taken").inc(len(spans))
        else:
            SPANS.inc(len(spans))
        if away is not self._away:
            self._away = away
            if away:
                _log.warning("traces_not_taken", reason="the collector does not take them; they are dropped")
            else:
                _log.info("traces_taken")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=_SAMPLED)
