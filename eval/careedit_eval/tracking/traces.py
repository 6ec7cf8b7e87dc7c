"""Traces and data sets in MLflow: what `careedit_eval.tracking.edits` prepared, sent so that sending again adds what is missing.

Call everything here within `careedit_eval.tracking.store.tracking`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from careedit.errors import InputError
from careedit_eval.runs import Run
from careedit_eval.tracking.edits import Judged, Traced, judged_votes, trace_id
from careedit_eval.tracking.names import safe_part
from careedit_eval.tracking.store import parts
from careedit_eval.votes_file import ExportedVote

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Span
    from mlflow.entities import Run as MlflowRun

SPANS = 100
"""The number of traces whose spans are sent in one request."""
RECORDS = 500
"""The number of rows of a data set per request."""
COMPLETE = "careedit.complete"
"""The tag of a data set that has all of its rows."""
PAGE = 500
"""The number of traces per page of a search, MLflow's maximum."""


def send_traces(child: MlflowRun, traces: Sequence[Traced], run: Run) -> None:
    """Log the traces of one benchmark and set to its MLflow run; those that are there are left alone."""
    from mlflow import MlflowClient
    from mlflow.tracing.client import TracingClient

    client = TracingClient()
    child = MlflowClient().get_run(child.info.run_id)  # a search leaves out the model
    began = int(datetime.fromisoformat(run.record.finished).timestamp() * 1000)
    known = {trace.info.trace_id for trace in _traces_of(child)}
    for some in parts(traces, SPANS):
        for one in some:
            if one.id_in(child.info.run_id) not in known:
                client.start_trace(_info(one, child, began))
        # Also of known traces, whose spans a cut-off may have left out; equal spans replace each other.
        client.log_spans(child.info.experiment_id, [span for one in some for span in _spans(one, child, began)])


def send_votes(
    children: Mapping[tuple[str, str], MlflowRun], votes: Iterable[ExportedVote], seeds: Sequence[int]
) -> None:
    """Log votes as assessments of the traces of both edits; those that are there are left alone.

    A vote does not name a seed. It belongs to the first seed of the suite, which the pages of votes show. Raises `InputError` for
    a vote on a set or sample that has no trace.
    """
    from mlflow.tracing.client import TracingClient

    client = TracingClient()
    known: dict[str, dict[str, set[tuple[str, str, str]]]] = {}
    for vote, arm, judged in judged_votes(votes):
        child = children.get((vote.benchmark, arm))
        if child is None:
            raise InputError(
                f"A vote is about {arm!r} on {vote.benchmark!r}, which the run does not have; give its votes."
            )
        run_id = child.info.run_id
        if run_id not in known:
            known[run_id] = {trace.info.trace_id: _votes_on(trace.info.assessments) for trace in _traces_of(child)}
        trace = trace_id(run_id, vote.sample, seeds[0])
        if trace not in known[run_id]:
            raise InputError(
                f"The sample {vote.sample!r} has no trace in MLflow; log the run with more `--traces`, or with its votes."
            )
        facts = judged.facts or {}
        key = (judged.source_id, facts["against"], facts["at"])
        if key not in known[run_id][trace]:
            client.log_assessment(trace, _assessment(judged))
            known[run_id][trace].add(key)


def send_dataset(run: Run, benchmark: str, experiment: str) -> None:
    """The rows of a benchmark as an MLflow data set, named by its fingerprint; made once, whichever suite uses it."""
    from mlflow.genai import datasets

    facts = next(one for one in run.record.benchmarks if one.name == benchmark)
    name = f"{safe_part(benchmark)}@{facts.fingerprint[:12]}"  # a filter of MLflow takes no quote
    found = datasets.search_datasets(filter_string=f"name = '{name}'", max_results=1)
    tags = {"fingerprint": facts.fingerprint, "revision": facts.revision, "rows": str(facts.rows)}
    dataset = found[0] if found else datasets.create_dataset(name=name, experiment_id=[experiment], tags=tags)
    if experiment not in dataset.experiment_ids:
        datasets.add_dataset_to_experiments(dataset.dataset_id, [experiment])
    # A narrowed run has some of the rows; a later run of the whole suite adds the others.
    lines = run.table.edits_of(benchmark, run.table.arms(benchmark)[0]).values()
    rows = {line.sample_id: line for line in lines}
    if int((dataset.tags or {}).get(COMPLETE, 0)) >= len(rows):
        return
    for some in parts(rows.values(), RECORDS):
        dataset.merge_records(
            [
                {
                    "inputs": {"sample_id": line.sample_id, "kind": line.kind, "instruction": line.instruction},
                    "tags": {"kind": line.kind, "group": line.group},
                }
                for line in some
            ]
        )
    datasets.set_dataset_tags(dataset_id=dataset.dataset_id, tags={COMPLETE: str(len(rows))})


def _traces_of(child: MlflowRun) -> Iterator[Any]:
    """The traces of a run, without spans."""
    from mlflow.tracing.client import TracingClient

    token = None
    while True:
        page = TracingClient().search_traces(
            locations=[child.info.experiment_id],
            run_id=child.info.run_id,
            max_results=PAGE,
            include_spans=False,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _info(one: Traced, child: MlflowRun, began: int) -> Any:
    """The facts of a trace with its assessments."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    line, inputs = one.line, child.inputs
    models = inputs.model_inputs if inputs is not None else ()
    metadata = {"mlflow.sourceRun": child.info.run_id, "mlflow.trace_schema.version": "3"}
    metadata |= {"mlflow.modelId": models[0].model_id} if models else {}
    tags = {
        "mlflow.traceName": "edit",
        "benchmark": line.benchmark,
        "expert_set": line.arm,
        "sample": line.sample_id,
        "seed": str(line.seed),
        "kind": line.kind,
        "edit_key": line.edit_key,
    }
    return TraceInfo(
        trace_id=one.id_in(child.info.run_id),
        trace_location=TraceLocation.from_experiment_id(child.info.experiment_id),
        request_time=began,
        state=TraceState.OK if line.error is None else TraceState.ERROR,
        request_preview=line.instruction[:1000],
        response_preview=(line.error or line.experts)[:1000],
        execution_duration=round(one.seconds * 1000),
        trace_metadata=metadata,
        tags={name: value[:250] for name, value in tags.items() if value},
        assessments=[_assessment(judged) for judged in one.judged],
    )


def _spans(one: Traced, child: MlflowRun, began: int) -> Iterator[Span]:
    """The spans of a trace: the edit, then its stages."""
    from mlflow.entities import Span

    trace, line = one.id_in(child.info.run_id), one.line

    def span(name: str, parent: str | None, start: float, seconds: float, attributes: Mapping[str, Any]) -> Span:
        failed = parent is None and line.error is not None
        first = began * 1_000_000 + round(start * 1e9)
        return Span.from_dict(
            {
                "trace_id": trace,
                "span_id": _span_id(trace, name),
                "parent_span_id": None if parent is None else _span_id(trace, parent),
                "name": name,
                "start_time_unix_nano": first,
                "end_time_unix_nano": first + round(seconds * 1e9),
                "status": {"code": f"STATUS_CODE_{'ERROR' if failed else 'OK'}", "message": line.error or ""},
                "attributes": {
                    "mlflow.traceRequestId": json.dumps(trace),
                    **{key: json.dumps(value) for key, value in attributes.items()},
                },
            }
        )

    asked = {"sample": line.sample_id, "kind": line.kind, "instruction": line.instruction, "seed": line.seed}
    made = {"experts": line.experts, "picture": line.picture, "nfe": line.nfe, "error": line.error}
    about = {"mlflow.spanType": "CHAIN", "mlflow.spanInputs": asked}
    yield span("edit", None, 0.0, one.seconds, about | {"mlflow.spanOutputs": made, "edit_key": line.edit_key})
    for stage in one.stages:
        facts = {"mlflow.spanType": "TOOL", "mlflow.spanOutputs": dict(stage.facts or {})}
        yield span(stage.name, stage.parent or "edit", stage.start, stage.seconds, facts)


def _span_id(trace: str, name: str) -> str:
    return hashlib.sha256(f"{trace}/{name}".encode()).hexdigest()[:16]


def _assessment(one: Judged) -> Assessment:
    from mlflow.entities import AssessmentError, AssessmentSource, Feedback

    error = None if one.error is None else AssessmentError(error_code="NOT_MEASURED", error_message=one.error)
    return Feedback(
        name=one.name,
        value=one.value,
        error=error,
        source=AssessmentSource(one.source, one.source_id),
        rationale=one.rationale,
        metadata=dict(one.facts or {}),
        create_time_ms=one.milliseconds,
        last_update_time_ms=one.milliseconds,
    )


def _votes_on(assessments: Iterable[Assessment]) -> set[tuple[str, str, str]]:
    """Rater, other set and time of each vote on a trace."""
    found = set()
    for one in assessments:
        if one.name == "vote" and one.metadata:
            found.add((str(one.source.source_id), one.metadata.get("against", ""), one.metadata.get("at", "")))
    return found
