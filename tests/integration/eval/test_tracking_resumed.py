"""Logging to MLflow that was cut off: at every request, by a failure of the server, by an older careedit; and odd names."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils import validation

import scripted_eval
from careedit_eval.errors import TrackingError
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.runs import Run
from careedit_eval.suite import Gate
from careedit_eval.tracking import log_run
from careedit_eval.tracking.names import MAX_PART, safe_parts
from scripted_eval import finished, suite

pytestmark = [
    # Of MLflow 3.17 and what it stands on, none of it under our hands.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WRITES = ("create_run", "update_run", "set_terminated", "log_inputs", "log_batch", "log_artifact")
"""What logging asks of a client."""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """`make_run(name)`: a finished run whose suite, and so MLflow's experiment, has that name."""

    def make(name: str) -> Run:
        wanted = suite(n=8, name=name, compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.1}))
        run = finished(wanted, tmp_path_factory.mktemp(name))
        analysis = analyse(run)
        write_analysis(run, analysis)
        write_report(run, analysis)
        return run

    return make


def runs_of(uri: str, name: str) -> list:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(f"eval/{name}")
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def check_whole(uri: str, name: str, run_id: str) -> None:
    """One parent and a child per set, all FINISHED, whole, and with every number once."""
    runs = runs_of(uri, name)
    assert sorted((run.info.status, "mlflow.parentRunId" in run.data.tags) for run in runs) == [
        ("FINISHED", False), ("FINISHED", True), ("FINISHED", True),
    ]  # fmt: skip
    client = MlflowClient(uri)
    parent = client.get_run(run_id)
    assert "bright/difference" in parent.data.metrics and len(parent.inputs.dataset_inputs) == 1
    assert {"report.html", "gate.json", "run.json"} <= {file.path for file in client.list_artifacts(run_id)}
    for child in (run for run in runs if run.info.run_id != run_id):
        assert child.data.tags["mlflow.parentRunId"] == run_id and child.data.metrics["drawn/bright/n"] == 8
        assert len(client.get_metric_history(child.info.run_id, "drawn/bright/n")) == 1


class Cut(BaseException):
    """The process dies here: nothing is tidied up after it."""


def test_logging_goes_on_wherever_it_was_cut_off(uri: str, make_run, monkeypatch) -> None:
    run, name, at = make_run("cut"), "cut", Counter[str]()
    limit = [0]
    for method in WRITES:
        real = getattr(MlflowClient, method)

        def cut(self, *args, _real=real, **kwargs):
            at["writes"] += 1
            if at["writes"] >= limit[0]:  # from here on nothing reaches the server, the mark "failed" included
                raise Cut
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, method, cut)
    cuts = 0
    for step in range(1, 100):
        at.clear()
        limit[0] = step
        try:
            run_id = log_run(run, uri)
        except Cut:
            cuts += 1
            assert not (run.folder / "mlflow.json").exists()
            continue
        break
    monkeypatch.undo()
    assert cuts >= 6
    check_whole(uri, name, run_id)


def test_a_failure_of_the_server_is_marked_and_mended_by_the_next_try(uri: str, make_run, monkeypatch) -> None:
    run, name = make_run("full"), "full"
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError("No space left on device")

        patch.setattr(MlflowClient, "log_artifact", full)
        with pytest.raises(TrackingError, match="No space left"):
            log_run(run, uri)
    assert Counter(one.info.status for one in runs_of(uri, name)) == {"FAILED": 1, "FINISHED": 2}
    check_whole(uri, name, log_run(run, uri))


def test_a_run_that_an_earlier_careedit_left_running_is_gone_on_with_and_a_double_is_ended(uri: str, make_run) -> None:
    run, name = make_run("older"), "older"
    client = MlflowClient(uri)
    experiment = client.create_experiment(f"eval/{name}", artifact_location=(run.folder.parent / "files").as_uri())
    for second in range(2):
        parent = client.create_run(experiment, tags={"run_folder": run.record.id}, start_time=1000 + second)
        client.create_run(
            experiment,
            tags={"mlflow.parentRunId": parent.info.run_id, "benchmark": "drawn", "expert_set": "a"},
        )
    other = client.create_run(experiment, tags={"run_folder": run.record.id, "run_sha256": "another run of that name"})
    run_id = log_run(run, uri)
    found = {one.info.run_id: one for one in runs_of(uri, name)}
    assert Counter(one.info.status for one in found.values()) == {"FINISHED": 3, "FAILED": 2, "RUNNING": 1}
    assert found[run_id].info.start_time == 1001 and found[other.info.run_id].info.status == "RUNNING"
    (run.folder / "mlflow.json").unlink()
    assert log_run(run, uri) == run_id, "a finished run is found again"
    assert len(runs_of(uri, name)) == 6


ODD = ("Add (object)", "..", ".", "", "a" * 300, "a" * 299 + "b", "Größe/Farbe 🎨", "a_b", "a:b", "a?b", "a//b", " x ", "ADD", "add",
       "Add _object_-0123456789ab", "x\ny", "\ud800")  # fmt: skip


def test_parts_of_names_are_taken_by_mlflow_and_never_the_same() -> None:
    parts = safe_parts(ODD)
    for part in parts.values():
        validation._validate_metric_name(f"benchmark/number/by_type/{part}/mean")
        assert len(part) <= MAX_PART and "/" not in part
    assert len({part.casefold() for part in parts.values()}) == len(ODD)
    again = safe_parts(parts.values())
    assert not set(again.values()) & {part for raw, part in parts.items() if raw != part}, "no raw one is another's"
    assert safe_parts(("Add", "Remove", "Größe 2"))["Größe 2"] == "Größe 2", "what MLflow takes stays what it was"


def test_kinds_that_are_no_names_are_logged(uri: str, tmp_path: Path, monkeypatch) -> None:
    kinds = ODD[:-1]  # half a surrogate pair can be in no file of results
    rows = scripted_eval.Drawn.rows

    def odd(self):
        for i, sample in enumerate(rows(self)):
            yield sample.model_copy(update={"kind": kinds[i % len(kinds)]})

    monkeypatch.setattr(scripted_eval.Drawn, "rows", odd)
    run = finished(suite(n=2 * len(kinds), name="odd"), tmp_path)
    run_id = log_run(run, uri)
    runs = runs_of(uri, "odd")
    assert {one.info.status for one in runs} == {"FINISHED"} and len(runs) == 3
    (child,) = [one for one in runs if one.data.tags["expert_set"] == "b" and one.info.run_id != run_id]
    assert len({key.split("/")[3] for key in child.data.metrics if "/by_type/" in key}) == len(kinds)
