import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from careedit.errors import CancelledError, InputError
from careedit_deployments.config import Telemetry
from careedit_deployments.telemetry.tracing import Tracing, traces_address

CALLER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
UNSAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    return Tracing(Telemetry(), "ingress", processor=SimpleSpanProcessor(exporter))


def test_a_span_continues_the_callers_trace_and_its_child_continues_it(tracing, exporter) -> None:
    with tracing.span("ingress", CALLER, kind="server") as outer, tracing.span("route", outer.headers):
        pass
    inner, outer = exporter.get_finished_spans()
    assert f"{outer.context.trace_id:x}" == "af7651916cd43dd8448eb211c80319c"
    assert f"{outer.parent.span_id:x}" == "b7ad6b7169203331"
    assert (inner.context.trace_id, inner.parent.span_id) == (outer.context.trace_id, outer.context.span_id)
    assert outer.resource.attributes["service.name"] == "careedit-ingress"


def test_a_caller_without_a_trace_gets_a_new_one(tracing, exporter) -> None:
    with tracing.span("ingress", {}, kind="server") as span:
        assert set(span.headers) == {"traceparent"}
    assert exporter.get_finished_spans()[0].parent is None


@pytest.mark.parametrize("broken", ["", "00-zz-zz-01", "x" * 5000])
def test_a_broken_traceparent_is_ignored(tracing, exporter, broken: str) -> None:
    with tracing.span("ingress", {"traceparent": broken}, kind="server"):
        pass
    assert exporter.get_finished_spans()[0].parent is None


def test_a_caller_who_does_not_sample_is_respected_and_told_so_to_the_next(tracing, exporter) -> None:
    with tracing.span("ingress", UNSAMPLED) as span:
        assert span.headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
        assert span.headers["traceparent"].endswith("-00")
    assert not exporter.get_finished_spans()


def test_a_sampling_of_nothing_sends_nothing_of_its_own(exporter) -> None:
    tracing = Tracing(Telemetry(sampling=0), "ingress", processor=SimpleSpanProcessor(exporter))
    with tracing.span("ingress", {}):
        pass
    assert not exporter.get_finished_spans()


def test_without_an_address_the_callers_headers_are_passed_on_and_nothing_else(exporter) -> None:
    tracing = Tracing(Telemetry(), "ingress")
    headers = {**CALLER, "TraceState": "vendor=1", "authorization": "Bearer secret"}
    with tracing.span("ingress", headers, arm="a") as span:
        span.set(seed=1)
        assert span.headers == {**CALLER, "tracestate": "vendor=1"}
    tracing.flush()
    tracing.shut_down()


def test_attributes_are_named_and_none_is_left_out(tracing, exporter) -> None:
    with tracing.span("expert", arm="a", expert=None, rows=3) as span:
        span.set(seconds=0.5)
    assert dict(exporter.get_finished_spans()[0].attributes) == {
        "careedit.arm": "a",
        "careedit.rows": 3,
        "careedit.seconds": 0.5,
    }


def test_an_error_marks_the_span_by_its_class_and_not_by_its_text(tracing, exporter) -> None:
    with pytest.raises(InputError), tracing.span("expert"):
        raise InputError("No expert for 'remove Kowalski'.")
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.attributes["error.type"] == "InputError"
    assert "Kowalski" not in span.to_json()


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), CancelledError("Cancelled."), GeneratorExit()])
def test_an_edit_that_was_given_up_is_no_error(tracing, exporter, raised: BaseException) -> None:
    with pytest.raises(type(raised)), tracing.span("expert"):
        raise raised
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.UNSET
    assert span.attributes["careedit.cancelled"] is True


def test_a_span_may_end_in_another_task_than_it_began(tracing, exporter) -> None:
    async def numbers() -> AsyncIterator[int]:
        with tracing.span("expert"):
            yield 1
            yield 2

    async def main() -> None:
        stream = numbers()
        assert await asyncio.create_task(anext(stream)) == 1
        await asyncio.create_task(stream.aclose())

    asyncio.run(main())
    assert exporter.get_finished_spans()[0].attributes["careedit.cancelled"] is True


def test_serves_span_of_the_request_is_the_parent_of_ours(tracing, exporter) -> None:
    theirs = TracerProvider().get_tracer("serve")
    with theirs.start_as_current_span("replica_handle_request") as around, tracing.span("in", CALLER, kind="server"):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.parent.span_id == around.get_span_context().span_id


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://vendor.example/otlp/v1/traces", "https://vendor.example/otlp/v1/traces"),
    ],
)
def test_the_usual_path_is_added_where_there_is_none(endpoint: str, address: str) -> None:
    assert traces_address(endpoint) == address
