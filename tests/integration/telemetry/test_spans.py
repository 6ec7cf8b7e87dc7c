"""Spans over the wire: what a receiver of OpenTelemetry gets from a request."""

import io
import threading
from collections.abc import Iterator

import httpx2
import pytest

from careedit_deployments.bench.spans import Receiver, receive_spans
from fake_backend import FakeBackend
from served import serve

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receive_spans() as running:
        yield running


@pytest.fixture
def post(draw_picture):
    """`post(served, instruction, headers)`: one edit over HTTP; the answer."""

    def send(served, instruction="remove the circle", headers=None):
        data = io.BytesIO()
        draw_picture().save(data, "PNG")
        return httpx2.post(
            f"{served.url}/v1/images/edits",
            files={"image": ("a.png", data.getvalue(), "image/png")},
            data={"prompt": instruction},
            headers=headers or {},
            timeout=60,
        )

    return send


def test_a_request_is_one_trace_with_its_callers(receiver, tmp_path, post) -> None:
    backend = FakeBackend(judge=False)
    with serve(tmp_path, backend, telemetry={"otlp_endpoint": receiver.url}) as served:
        answer = post(served, headers={**CALLER, "x-request-id": "req-17"})
    assert answer.status_code == 200
    below = ("read", "decode", "route", "edit", "record", "answer")
    spans = receiver.wait_for("request", *below)
    assert {span.trace for span in spans.values()} == {TRACE}
    assert {span.service for span in spans.values()} == {"careedit-ingress"}
    assert spans["request"].parent == "b7ad6b7169203331"
    assert {spans[name].parent for name in below} == {spans["request"].id}
    assert sorted(below, key=lambda name: spans[name].begin) == list(below), "one after the other"
    assert spans["edit"].attributes["careedit.edit"] == answer.headers["x-careedit-edit"]
    assert backend.calls[0].trace_headers["traceparent"] == f"00-{TRACE}-{spans['edit'].id}-01"
    assert "circle" not in "".join(span.raw for span in receiver.spans), "prompts are in no span"


def test_a_failed_edit_marks_its_spans(receiver, tmp_path, post) -> None:
    backend = FakeBackend(judge=False)
    backend.broken.add("tiny")
    receiver.spans.clear()
    with serve(tmp_path, backend, telemetry={"otlp_endpoint": receiver.url}) as served:
        assert post(served).status_code == 503
    span = receiver.wait_for("edit")["edit"]
    assert span.error
    assert span.attributes["error.type"] == "UnavailableError"


def test_a_caller_who_does_not_sample_sends_nothing_to_the_receiver(receiver, tmp_path, post) -> None:
    backend = FakeBackend(judge=False)
    receiver.spans.clear()
    with serve(tmp_path, backend, telemetry={"otlp_endpoint": receiver.url}) as served:
        assert post(served, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}).status_code == 200
        assert post(served, headers=CALLER).status_code == 200  # so that there is something to wait for
    receiver.wait_for("edit")
    assert len([span for span in receiver.spans if span.name == "edit"]) == 1
    assert backend.calls[0].trace_headers["traceparent"].endswith("-00")


def test_a_receiver_that_is_away_costs_no_edit(tmp_path, post, caplog) -> None:
    caplog.set_level("CRITICAL", logger="opentelemetry")
    with serve(tmp_path, FakeBackend(judge=False), telemetry={"otlp_endpoint": "http://127.0.0.1:9"}) as served:
        assert [post(served).status_code for _ in range(3)] == [200] * 3


def test_a_server_that_stops_sends_its_last_spans_first_and_has_one_sender(receiver, tmp_path, post) -> None:
    receiver.spans.clear()
    with serve(tmp_path, FakeBackend(judge=False), telemetry={"otlp_endpoint": receiver.url}) as served:
        senders = [thread.name for thread in threading.enumerate() if thread.name.startswith("OtelBatch")]
        assert post(served).status_code == 200
    assert len(senders) == 1
    assert {"request", "route", "edit"} <= {span.name for span in receiver.spans}, "without waiting for them"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("OtelBatch")]
