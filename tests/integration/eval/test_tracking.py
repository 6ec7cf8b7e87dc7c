"""MLflow for real, in a SQLite file: what is logged, that it is logged once, and what promotion moves."""

import os
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from careedit.errors import InputError
from careedit.experts import load_expert_set
from careedit_eval.editors import resolve_arm
from careedit_eval.errors import TrackingError
from careedit_eval.gate import judge_run
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.suite import Arm, Gate
from careedit_eval.tracking import default_uri, log_run, promote, register_set, roll_back, set_location, tracking
from scripted_eval import finished, suite

pytestmark = [
    # Of MLflow 3.17 and what it stands on, none of it under our hands.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite store; making its tables takes most of the time of these tests."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def test_a_run_is_a_parent_with_a_child_per_set_and_is_logged_once(tmp_path: Path, uri: str) -> None:
    wanted = suite(
        n=64, compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.1}),
        pairwise=({"name": "scripted_eval:sharper"},),
    )  # fmt: skip
    run = finished(wanted, tmp_path)
    analysis = analyse(run)
    write_analysis(run, analysis)
    write_report(run, analysis)
    run_id = log_run(run, uri, analysis.verdict)
    assert log_run(run, uri, analysis.verdict) == run_id
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("eval/scripted")
    assert experiment is not None
    children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    parent = client.get_run(run_id)
    assert len(client.search_runs([experiment.experiment_id])) == 3 and len(children) == 2
    assert (parent.data.tags["gate"], parent.data.tags["suite"]) == ("pass", "scripted")
    assert {"report.html", "gate.json", "scores.parquet", "grid.png"} <= {f.path for f in client.list_artifacts(run_id)}
    assert parent.info.artifact_uri.startswith(Path(uri.removeprefix("sqlite:///")).parent.as_uri())
    preferred = {key.rpartition("/")[2]: value for key, value in parent.data.metrics.items() if "/b_over_a/" in key}
    assert preferred["share"] > 0.9 and preferred["n"] == 64 and preferred["consistency"] == 0.25
    assert preferred["ci_low"] < preferred["share"] <= preferred["ci_high"]
    (given,) = parent.inputs.dataset_inputs
    assert given.dataset.digest == run.record.benchmarks[0].fingerprint[:36]
    (b,) = [child for child in children if child.data.tags["expert_set"] == "b"]
    values = [line.value for line in run.table.column("drawn", "b", "bright").values()]
    assert b.data.metrics["drawn/bright/mean"] == pytest.approx(sum(map(float, filter(None, values))) / 64)
    assert b.data.metrics["drawn/bright/n"] == 64 and "drawn/bright/by_type/Add/ci_low" in b.data.metrics
    whole = next(one for one in analysis.compared[0].differences if one.kind == "all")
    shown = {"difference": whole.difference, "ci_low": whole.interval.low, "ci_high": whole.interval.high, "p": whole.p}
    assert {name: parent.data.metrics[f"bright/{name}"] for name in shown} == pytest.approx(shown)
    assert (parent.data.metrics["gate/passed"], parent.data.tags["gate/outcome"]) == (1.0, "pass")


def test_a_champion_is_promoted_found_by_its_address_and_rolled_back(untrained_set: Path, uri: str) -> None:
    first = resolve_arm(Arm(name="x", expert_set=str(untrained_set))).facts
    second = {**first, "sha256": "0" * 64, "version": "2.0"}
    with pytest.raises(InputError, match="promote a set"):
        set_location("models:/untrained@champion", uri)
    with tracking(uri):
        assert register_set(first) == register_set(first) == "1"
        assert promote(first, run_id="r1", reason="PASS") == "1"
        assert promote(second, run_id="r2", reason="PASS") == "2"
        tags = MlflowClient().get_model_version("untrained", "2").tags
    assert (tags["promoted_from_run"], tags["previous_champion"]) == ("r2", "1")
    with pytest.raises(InputError, match="states 000000000000"):
        set_location("models:/untrained@champion", uri)  # what lies there is not what was promoted
    with tracking(uri):
        assert roll_back("untrained") == "1"
    place = set_location("models:/untrained@champion", uri)
    assert load_expert_set(place).sha256 == first["sha256"]
    arm = Arm(name="x", expert_set="models:/untrained@champion")
    assert resolve_arm(arm, registry=uri).identity["set"] == first["sha256"]
    with tracking(uri), pytest.raises(InputError, match="first champion"):
        roll_back("untrained")


def test_a_set_without_a_champion_is_what_the_suite_says_otherwise(untrained_set: Path, tmp_path: Path) -> None:
    arm = Arm(name="x", expert_set="models:/nobody@champion", otherwise=str(untrained_set))
    nowhere = f"sqlite:///{tmp_path / 'none.db'}"
    assert resolve_arm(arm, registry=nowhere).facts["set"] == "untrained"
    assert not (tmp_path / "none.db").exists()


def test_a_server_that_is_down_costs_a_sentence_and_no_result(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = finished(suite(compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.1})), tmp_path)
    with pytest.raises(TrackingError, match="results are kept, log them with `careedit eval log`"):
        log_run(run, "http://127.0.0.1:9", judge_run(run))
    assert not (run.folder / "mlflow.json").exists() and run.table.scores
    assert "127.0.0.1" not in mlflow.get_tracking_uri()


@pytest.mark.parametrize("named", [None, "http://127.0.0.1:9"])
def test_talking_to_one_mlflow_leaves_the_others_address_as_it_was(tmp_path: Path, monkeypatch, named) -> None:
    if named is None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
    before = default_uri(tmp_path)
    with tracking(f"sqlite:///{tmp_path / 'elsewhere.db'}"):
        assert "elsewhere" in mlflow.get_tracking_uri()
    assert default_uri(tmp_path) == before and "elsewhere" not in mlflow.get_tracking_uri()
    assert "MLFLOW_REGISTRY_URI" not in os.environ
