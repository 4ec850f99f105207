"""A collector of traces: takes them by OTLP over HTTP, and remembers them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from reservation.ids import ReservationId
from reservation.tracing import trace_id_of
from tests.servers import free_port


@dataclass(frozen=True)
class Seen:
    """A span as it was received."""

    role: str
    resource: dict[str, Any]
    name: str
    trace_id: int
    span_id: int
    parent_id: int
    start_ns: int
    end_ns: int
    kind: str
    failed: bool
    attributes: dict[str, Any]
    links: list[tuple[int, int]]


@dataclass
class Collector:
    """What has come, from whomever."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    hangs: bool = False
    """Takes requests, and answers none of them for as long."""

    def trace(self, reservation: str) -> list[Seen]:
        """All of a reservation's spans, by their beginning."""
        found = ReservationId.parse(reservation)
        assert found is not None
        return self.by_id(trace_id_of(found))

    def by_id(self, trace_id: int) -> list[Seen]:
        found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.start_ns)

    async def take(self, request: web.Request) -> web.Response:
        while self.hangs:
            await asyncio.sleep(0.02)
            if not self.hangs:
                return web.Response(status=500)
        exported = ExportTraceServiceRequest.FromString(await request.read())
        for of_resource in exported.resource_spans:
            resource = values(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += [seen(span, resource) for span in of_scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def seen(span: Span, resource: dict[str, Any]) -> Seen:
    return Seen(
        role=resource["doorbuster.role"],
        resource=resource,
        name=span.name,
        trace_id=int.from_bytes(span.trace_id),
        span_id=int.from_bytes(span.span_id),
        parent_id=int.from_bytes(span.parent_span_id),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        kind=Span.SpanKind.Name(span.kind),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=values(span.attributes),
        links=[(int.from_bytes(link.trace_id), int.from_bytes(link.span_id)) for link in span.links],
    )


def values(found: Any) -> dict[str, Any]:
    def value(one: KeyValue) -> Any:
        return getattr(one.value, one.value.WhichOneof("value"))

    return {one.key: value(one) for one in found}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, on a thread of its own."""
    port = free_port()
    collector = Collector(f"http://127.0.0.1:{port}/v1/traces")
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.hangs = False
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
