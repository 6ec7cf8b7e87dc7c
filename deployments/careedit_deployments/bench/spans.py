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

from careedit_deployments.errors import ServingError


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came over the wire."""

    name: str
    """Name of the span, such as "route"."""
    service: str
    """`service.name` of the process that sent it."""
    trace: str
    """Hex id of its trace."""
    id: str
    """Hex id of the span itself."""
    parent: str
    """Hex id of the span above it; empty for the first."""
    begin: float
    """Unix time of its start, in seconds; processes of one machine share that clock."""
    end: float
    """Unix time of its end, in seconds."""
    error: bool
    """Whether the work of the span failed."""
    attributes: dict[str, Any]
    """Its attributes, by their names with the prefix "careedit."."""
    raw: str
    """Everything in the span, as text."""

    @property
    def seconds(self) -> float:
        """Duration of the span."""
        return self.end - self.begin


@dataclass(eq=False)
class Receiver:
    """The spans that have arrived."""

    url: str
    """Address of the receiver, for `telemetry.otlp_endpoint`."""
    spans: list[ReceivedSpan] = field(default_factory=list)
    """All spans, in the order of their arrival."""
    arrived: threading.Condition = field(default_factory=threading.Condition)
    """Notified after each arrival; hold it to read `spans` while a server runs."""

    def wait_for(self, *names: str, trace: str | None = None, seconds: float = 30) -> dict[str, ReceivedSpan]:
        """The latest span of each name, of the trace with this id (None: of any), once each of `names` has arrived.

        Raises `ServingError` if one does not arrive within `seconds`.
        """
        with self.arrived:
            if not self.arrived.wait_for(lambda: set(names) <= set(self._latest(trace)), seconds):
                missing = ", ".join(sorted(set(names) - set(self._latest(trace))))
                raise ServingError(f"These spans did not arrive within {seconds:g} seconds: {missing}.")
            return self._latest(trace)

    def _latest(self, trace: str | None) -> dict[str, ReceivedSpan]:
        return {span.name: span for span in self.spans if trace in (None, span.trace)}


@contextmanager
def receive_spans() -> Iterator[Receiver]:
    """A receiver until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
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
            """Write no log."""

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
                    begin=span.start_time_unix_nano / 1e9,
                    end=span.end_time_unix_nano / 1e9,
                    error=span.status.code == 2,
                    attributes={
                        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes
                    },
                    raw=str(span),
                )
