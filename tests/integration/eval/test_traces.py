"""Edits as MLflow traces with spans, scores and votes, in a SQLite file and over a server; sent again they change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.genai import datasets
from mlflow.tracing.client import TracingClient

from careedit.cli.main import main
from careedit.errors import InputError
from careedit_eval.errors import TrackingError
from careedit_eval.runs import Run, load_run
from careedit_eval.tracking import TRACKED_FILE, log_run, tracking
from careedit_eval.tracking.edits import chosen_pairs
from careedit_eval.votes_file import ExportedVote, read_votes
from scripted_eval import arm, finished, suite

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STAGES = {"route": 0.01, "prepare": 0.02, "filter": 0.2, "denoise": 0.25, "finish": 0.02}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two sets on six samples, of which A cannot edit one and one cannot be measured; every edit has a trace.

    Its name is the test's own: runs of one name that finish in the same second would be one run to MLflow.
    """
    wanted = suite(arm("a", fail="s001"), arm("b", by=60), metric={"fail": "s002"}, rows=("identity",))
    made = finished(wanted, tmp_path, tmp_path.name)
    for file in (made.store / "edits").glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            routing = {"weights": {"erase": 1.0}, "feasible": 0.9, "router": "rules", "reason": "It says so."}
            judged = {"judge_seconds": 0.125, "chosen": 1, "judge": {"model": "tiny"}}
            trace = {"routing": routing, "seconds": STAGES, "filter": judged, "nfe": 4, "steps": 4}
            row["trace"] = json.dumps(trace) if row["error"] is None else None
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return load_run(made.folder)


def traces_of(uri: str, run_id: str) -> dict[tuple[str, str], Any]:
    """The traces of the children of a parent, by set and sample."""
    client = MlflowClient(uri)
    experiment = client.get_run(run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
    found = [
        trace for child in children for trace in client.search_traces(locations=[experiment], run_id=child.info.run_id)
    ]
    return {(trace.info.tags["expert_set"], trace.info.tags["sample"]): trace for trace in found}


def vote(**fields: str) -> str:
    known = {"rater": "r1", "benchmark": "drawn", "sample": "s003", "left": "a", "right": "b", "verdict": "right"}
    return json.dumps({**known, "at": "2026-11-30T12:00:00Z", **fields}) + "\n"


def votes_on(run: Run, file: Path) -> list[ExportedVote]:
    return list(read_votes(file, run.record.id).values())


def test_an_edit_is_a_trace_with_the_lengths_of_its_stages_its_scores_and_its_votes(
    run: Run, uri: str, tmp_path: Path
) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text(vote() + vote(rater="r2", verdict="both_bad"))
    run_id = log_run(run, uri, votes=votes_on(run, file))
    traces = traces_of(uri, run_id)
    assert {name for name, _ in traces} == {"a", "b"} and len(traces) == 12, "the identity has no traces"
    one = traces["b", "s003"]
    spans = {span.name: span for span in one.data.spans}
    lengths = {name: (span.end_time_ns - span.start_time_ns) / 1e9 for name, span in spans.items()}
    assert lengths == pytest.approx({"edit": 0.5, "judge": 0.125, **STAGES})
    assert spans["denoise"].start_time_ns == spans["filter"].end_time_ns
    parents = {name: span.parent_id for name, span in spans.items()}
    assert parents["edit"] is None and parents["judge"] == spans["filter"].span_id
    assert {parents[name] for name in STAGES} == {spans["edit"].span_id}
    assert spans["route"].outputs["reason"] == "It says so." and spans["edit"].inputs["instruction"] == "make it 3"
    assert (one.info.execution_duration, one.info.tags["kind"]) == (500, "Remove")
    numbers = {found.name: found for found in one.info.assessments if found.source.source_type == "CODE"}
    score = run.table.column("drawn", "b", "bright")["s003", 0]
    assert numbers["bright"].value == pytest.approx(score.value)
    assert numbers["bright"].metadata["metric_key"] == run.record.metric_keys["bright"]
    people = [(name, found.source.source_id, found.value, found.metadata["against"])
              for name in ("a", "b") for found in traces[name, "s003"].info.assessments
              if found.source.source_type == "HUMAN"]  # fmt: skip
    assert sorted(people) == [
        ("a", "r1", "worse", "b"), ("a", "r2", "both bad", "b"), ("b", "r1", "better", "a"), ("b", "r2", "both bad", "a"),
    ]  # fmt: skip
    failed, unmeasured = traces["a", "s001"], traces["b", "s002"]
    assert failed.info.state == "ERROR" and "no paint" in failed.info.response_preview and not failed.info.assessments
    assert "light meter" in unmeasured.info.assessments[0].error.error_message


def test_edits_of_an_expert_set_belong_to_its_logged_model(run: Run, uri: str) -> None:
    facts = {
        "kind": "set",
        "expert": "auto",
        "set": "mine",
        "version": "1",
        "sha256": "0" * 64,
        "base": "b",
        "location": "x",
    }
    sets = tuple(one.model_copy(update={"facts": facts}) if one.name == "b" else one for one in run.record.sets)
    run_id = log_run(Run(run.folder, run.record.model_copy(update={"sets": sets})), uri)
    traces = traces_of(uri, run_id)
    model = MlflowClient(uri).get_logged_model(traces["b", "s000"].info.trace_metadata["mlflow.modelId"])
    assert model.name == "mine" and "drawn/bright/mean" in {metric.key for metric in model.metrics}
    assert "mlflow.modelId" not in traces["a", "s000"].info.trace_metadata


def test_what_is_logged_again_changes_nothing_and_what_is_new_is_added(
    run: Run, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    log = ["eval", "log", str(run.folder)]
    assert main([*log, "--traces", "2"]) == 0
    run_id = capsys.readouterr().out.strip()
    before = traces_of(uri, run_id)
    assert {sample for _, sample in before} == {name for name, _ in chosen_pairs(run, "drawn", 2)} and len(before) == 4
    file = tmp_path / "votes.jsonl"
    sample = next(iter(before))[1]
    file.write_text(vote(sample=sample))
    for _ in range(2):
        (run.folder / TRACKED_FILE).unlink(missing_ok=True)  # as after a copy of the folder
        assert main([*log, "--traces", "6", "--votes", str(file)]) == 0
    assert capsys.readouterr().out.split() == [run_id] * 2
    after = traces_of(uri, run_id)
    assert len(after) == 12 and before.keys() <= after.keys()
    for key, trace in after.items():
        names = [found.name for found in trace.info.assessments]
        assert len(names) == len(set(names)) and len(trace.data.spans) in (1, 7)
        assert ("vote" in names) == (key[1] == sample)


def test_a_trace_that_a_server_lost_half_of_is_completed(run: Run, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> None:
        raise OSError("the server is down")

    with monkeypatch.context() as patched:
        patched.setattr(TracingClient, "log_spans", down)
        with pytest.raises(TrackingError, match="results are kept"):
            log_run(run, uri)
    assert not (run.folder / TRACKED_FILE).exists()
    traces = traces_of(uri, log_run(run, uri))
    assert len(traces) == 12 and len(traces["b", "s000"].data.spans) == 7
    assert [len(trace.info.assessments) for trace in traces.values()].count(1) == 11


def test_a_benchmark_is_one_data_set_by_its_fingerprint(run: Run, uri: str) -> None:
    log_run(run, uri)
    fingerprint = run.record.benchmarks[0].fingerprint
    with tracking(uri):
        (found,) = datasets.search_datasets(filter_string=f"name = 'drawn@{fingerprint[:12]}'")
        assert found.tags["fingerprint"] == fingerprint and len(found.to_df()) == 6


def test_a_benchmark_of_any_name_is_logged_with_its_votes(tmp_path: Path, uri: str) -> None:
    name, file = 'd\'\u00e9t\u00e9 "<b>"', tmp_path / "votes.jsonl"
    run = finished(suite(n=2, bench={"name": name}), tmp_path, "it's")
    file.write_text(json.dumps(json.loads(vote(benchmark=name, sample="s001", rater="a\u0085b")), ensure_ascii=False))
    votes = votes_on(run, file)
    for _ in range(2):
        traces = traces_of(uri, log_run(run, uri, votes=votes))
    assert [len(trace.info.assessments) for trace in traces.values()].count(2) == 2


def test_votes_that_are_none_or_on_nothing_are_refused_by_line(run: Run, uri: str, tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    for text, message in (
        (vote() + "{}\n", "line 2 is not a vote"),
        (vote(verdict="maybe"), "line 1"),
        (vote(at="yesterday"), "is not a date"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            votes_on(run, file)
    for fields, message in (({"left": "c"}, "which the run does not have"), ({"sample": "s999"}, "has no trace")):
        file.write_text(vote(**fields))
        with pytest.raises(InputError, match=message):
            log_run(run, uri, votes=votes_on(run, file))
