import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from careedit.scoring import ScoreRequest, VqaScorer
from careedit_deployments.config import Telemetry
from careedit_deployments.telemetry.metrics import Metrics, Recording
from careedit_deployments.telemetry.scorer import WatchedScorer
from careedit_deployments.telemetry.tracing import Tracing
from scripted import Scripted


@pytest.fixture
def requests(draw_picture) -> list[ScoreRequest]:
    return [ScoreRequest(source=draw_picture(), edited=draw_picture(seed=1), instruction="remove it") for _ in range(3)]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def watched(rule, exporter: InMemorySpanExporter, recording: Recording) -> WatchedScorer:
    tracing = Tracing(Telemetry(), "expert", processor=SimpleSpanProcessor(exporter))
    caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    return WatchedScorer(VqaScorer(Scripted(rule)), tracing, Metrics(recording), caller)


def test_a_look_is_a_span_below_the_edit_and_its_scores_are_the_judges(requests, exporter) -> None:
    recording = Recording()
    scorer = watched(lambda question: 0.5, exporter, recording)
    scores = scorer.score(requests)
    assert scores == VqaScorer(Scripted(lambda question: 0.5)).score(requests)
    assert scorer.identity == scores[0].judge
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.attributes["careedit.pictures"]) == ("scorer", 3)
    assert f"{span.parent.span_id:x}" == "b7ad6b7169203331"
    assert recording.total("careedit_judged", outcome="given") == 3
    assert recording.total("careedit_judged", outcome="failed") == 0


def test_scores_that_are_errors_count_as_failed(requests, exporter) -> None:
    recording = Recording()
    watched(lambda question: "It could not be read.", exporter, recording).score(requests)
    assert recording.total("careedit_judged", outcome="failed") == 3


def test_a_judge_that_raises_is_counted_and_raises_on(requests, exporter) -> None:
    def fail(question):
        raise OSError("gone")

    recording = Recording()
    with pytest.raises(OSError, match="gone"):
        watched(fail, exporter, recording).score(requests)
    assert recording.total("careedit_judged", outcome="failed") == 3
    assert exporter.get_finished_spans()[0].attributes["error.type"] == "OSError"
