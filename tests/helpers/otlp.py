"""A receiver of OpenTelemetry spans on a free port of this machine: OTLP over HTTP, in protobuf."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came over the wire."""

    name: str
    service: str
    """`service.name` of the process that sent it."""
    trace: str
    """Hex id of its trace."""
    id: str
    """Its hex id."""
    parent: str
    """Hex id of the span above it; empty for the first."""
    error: bool
    attributes: dict[str, Any]
    raw: str
    """Everything in it, as text."""


@dataclass(eq=False)
class Receiver:
    """What came in."""

    url: str
    """What `telemetry.otlp_endpoint` is set to."""
    spans: list[ReceivedSpan] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, *names: str, seconds: float = 30) -> dict[str, ReceivedSpan]:
        """The latest span of each name, once all have come."""
        with self.arrived:
            got = self.arrived.wait_for(lambda: set(names) <= {span.name for span in self.spans}, seconds)
            assert got, f"of {names} only {sorted({span.name for span in self.spans})} came"
            return {span.name: span for span in self.spans if span.name in names}


@contextmanager
def receive_spans() -> Iterator[Receiver]:
    """A receiver until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            data = self.rfile.read(int(self.headers["content-length"]))
            data = gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data
            found = list(_spans(ExportTraceServiceRequest.FromString(data)))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            with receiver.arrived:
                receiver.spans += found
                receiver.arrived.notify_all()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for resource in request.resource_spans:
        about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    name=span.name,
                    service=about.get("service.name", ""),
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    error=span.status.code == 2,
                    attributes={
                        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes
                    },
                    raw=str(span),
                )
