"""OpenTelemetry spans: ingress -> route -> expert -> scorer, in one trace with the caller's spans.

Ray Serve 2.60 has a `TracingConfig` (`ray/serve/_private/{tracing_utils,proxy,replica,router}.py`). It cannot make these spans,
for three reasons. First, it belongs to the Serve instance: all applications of a cluster share one exporter, a function
without arguments that cannot read this configuration. Second, it has spans for Serve's own calls only
(`proxy_http_request`, `replica_handle_request`), not for steps that are batched over several edits, retries on another
replica or calls of the judge. Third, it passes the context in context variables, which end where an edit moves between
tasks: at the step scheduler.

So each process has its own provider (`Tracing`), which is not global, and the context is passed explicitly as
`EditCall.trace_headers`. An operator can add Serve's spans: `serve_tracing` returns the `tracing_config` for `serve.start` or
a Serve YAML, its exporter is `serve_span_processors`, and `Tracing` uses Serve's span of a request as its parent, so that all
spans form one trace.

Spans contain ids, names and numbers, but no prompts, pictures or error texts, which may quote a request.
"""

from __future__ import annotations

from asyncio import CancelledError as TaskCancelled
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from careedit.errors import CancelledError
from careedit_deployments.config import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

CARRIED = ("traceparent", "tracestate")
"""Headers that carry a trace (W3C Trace Context)."""

Attribute = str | bool | int | float | None

_PROPAGATOR = TraceContextTextMapPropagator()


class Span:
    """A timed part of a request. Without tracing it only passes the caller's headers on."""

    def __init__(self, headers: Mapping[str, str], span: trace.Span | None = None) -> None:
        self.headers = dict(headers)
        """Headers for child spans in other processes: `EditCall.trace_headers`."""
        self._span = span

    def set(self, **attributes: Attribute) -> None:
        """Add attributes to the span; those that are None are left out."""
        if self._span is not None:
            self._span.set_attributes(_named(attributes))


class Tracing:
    """The spans of one process. Made once per replica, in its process; it cannot be pickled."""

    def __init__(self, telemetry: Telemetry, part: str, *, processor: SpanProcessor | None = None) -> None:
        """`part` is "ingress", "router", "expert" or "scorer"; `processor` replaces the exporter over OTLP/HTTP."""
        self._provider: Any = None
        self._tracer: trace.Tracer | None = None
        if telemetry.otlp_endpoint is None and processor is None:
            return
        from opentelemetry.sdk.resources import Resource  # imported here: without an address, the SDK is not needed
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(telemetry.sampling),
            resource=Resource.create({"service.namespace": "careedit", "service.name": f"careedit-{part}"}),
            shutdown_on_exit=True,
        )
        self._provider.add_span_processor(processor or _exporter(telemetry.otlp_endpoint))
        self._tracer = self._provider.get_tracer("careedit")

    @contextmanager
    def span(
        self,
        name: str,
        headers: Mapping[str, str] | None = None,
        *,
        kind: Literal["server", "client", "internal"] = "internal",
        **attributes: Attribute,
    ) -> Iterator[Span]:
        """Time a part of the work, as a child of the span whose `headers` are given.

        It uses no context variables, so it works inside an asynchronous generator that another task closes. An error marks
        the span with its class. A cancelled edit is marked as cancelled, not as an error.
        """
        carried = {key.lower(): value for key, value in (headers or {}).items() if key.lower() in CARRIED}
        if self._tracer is None:
            yield Span(carried)
            return
        context = _PROPAGATOR.extract(carried, Context())
        around = trace.get_current_span()
        if (
            kind == "server" and around.get_span_context().is_valid
        ):  # Serve's span of this request, itself a child of the caller's
            context = trace.set_span_in_context(around, context)
        span = self._tracer.start_span(name, context, kind=trace.SpanKind[kind.upper()], attributes=_named(attributes))
        inside: dict[str, str] = {}
        _PROPAGATOR.inject(inside, trace.set_span_in_context(span, context))
        try:
            yield Span(inside, span)
        except (GeneratorExit, TaskCancelled, CancelledError):
            span.set_attribute("careedit.cancelled", True)
            raise
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            span.end()

    def flush(self) -> None:
        """Send all ended spans and wait. For tests, and for a replica that is about to end."""
        if self._provider is not None:
            self._provider.force_flush()

    def shut_down(self) -> None:
        """Send all ended spans and stop."""
        if self._provider is not None:
            self._provider.shutdown()


def serve_tracing(telemetry: Telemetry) -> dict[str, object] | None:
    """The `tracing_config` that adds Serve's own spans; None if no address is configured.

    Every process of the cluster needs the address in `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, see `traces_address`.
    """
    if telemetry.otlp_endpoint is None:
        return None
    return {
        "enabled": True,
        "exporter_import_path": f"{__name__}:serve_span_processors",
        "sampling_ratio": telemetry.sampling,
    }


def serve_span_processors() -> list[SpanProcessor]:
    """Span processors for Serve, which calls this in each of its processes: an exporter to `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`."""
    return [_exporter(None)]


def traces_address(endpoint: str) -> str:
    """The URL that spans are posted to: the path of the endpoint, or OTLP's default path if it has none."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


def _exporter(endpoint: str | None) -> SpanProcessor:
    """Sends spans in the background, at most a second late. If the receiver does not answer, spans are lost, but no edit fails."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    address = None if endpoint is None else traces_address(endpoint)
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=5), schedule_delay_millis=1000)


def _named(attributes: Mapping[str, Attribute]) -> dict[str, str | bool | int | float]:
    return {f"careedit.{name}": value for name, value in attributes.items() if value is not None}
