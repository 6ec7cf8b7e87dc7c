"""The judge's looks at an edit's previews are a span below the edit's own, and are counted."""

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from careedit.records import EarlyFilter
from careedit_deployments.config import Telemetry
from careedit_deployments.replica.edit import EditRunner
from careedit_deployments.telemetry.metrics import Metrics, Recording
from careedit_deployments.telemetry.tracing import Tracing

CALLER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def test_a_look_of_the_judge_is_a_span_of_its_edit_and_is_counted(editor, scheduler, call, events, scripted):
    exporter, recording = InMemorySpanExporter(), Recording()
    runner = EditRunner(
        editor,
        scheduler,
        scorer=scripted([0.1, 0.9]),
        workers=1,
        tracing=Tracing(Telemetry(), "expert", processor=SimpleSpanProcessor(exporter)),
        metrics=Metrics(recording),
    )
    wanted = call(seed=5, early_filter=EarlyFilter(strategy="continue", candidates=2, preview_steps=1))
    (told,) = events(runner, wanted.model_copy(update={"trace_headers": CALLER}))
    assert told[-1].trace.filter.chosen == 1
    (look,) = exporter.get_finished_spans()
    assert (look.name, f"{look.parent.span_id:x}") == ("scorer", "b7ad6b7169203331")
    assert look.attributes["careedit.pictures"] == 2
    assert recording.total("careedit_judged", outcome="given") == 2
