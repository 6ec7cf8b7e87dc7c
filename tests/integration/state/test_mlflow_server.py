"""An evaluation logged to a tracking server over PostgreSQL and a bucket: a real server process, a real database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import httpx2
import pytest

from careedit.cli.main import main
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.runs import Run, load_run
from careedit_eval.suite import Gate
from scripted_eval import finished, suite
from servers import free_port, pg_program

pytestmark = [
    # Of MLflow 3.17 and what it stands on, none of it under our hands.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(600),
]

BUCKET = "careedit/mlflow"


@pytest.fixture(scope="module")
def database(postgres: str) -> str:
    """Address of the server's database."""
    pg_program("createdb", "--maintenance-db", postgres, "mlflow")
    return postgres.replace("/postgres", "/mlflow")


@pytest.fixture(scope="module")
def server(database: str, bucket: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a tracking server for the tests of this module."""
    with tracking_server(database, f"s3://{BUCKET}", bucket, tmp_path_factory.mktemp("server")) as url:
        yield url


@contextmanager
def tracking_server(database: str, destination: str, bucket: dict[str, Any], folder: Path) -> Iterator[str]:
    """Address of `mlflow server`, which alone has the bucket's keys: clients send artefacts through it."""
    port = free_port()
    options = bucket["blob_options"]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": options["client_kwargs"]["endpoint_url"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes that nothing here uses
    }
    stores = [
        f"--backend-store-uri={database.replace('postgresql:', 'postgresql+psycopg2:')}",
        f"--artifacts-destination={destination}",
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", *stores]
    log = folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env=environment, cwd=folder, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _until_it_answers(url, process, log)
        yield url
    finally:
        os.killpg(process.pid, 15)  # its workers too
        process.wait(30)


def _until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while True:
        try:
            if httpx2.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run with a page and a verdict, where `careedit eval` would have put it."""
    wanted = suite(n=64, compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.1}))
    made = finished(wanted, tmp_path / "eval-runs")
    analysis = analyse(made)
    write_analysis(made, analysis)
    write_report(made, analysis)
    return load_run(made.folder)


def test_a_run_whose_server_was_down_is_logged_when_it_is_up(
    run: Run, server: str, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["eval", "log", str(run.folder)]) == 1
    assert "results are kept, log them with `careedit eval log`" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert main(["eval", "log", str(run.folder)]) == 0
    run_id = capsys.readouterr().out.strip()
    client = MlflowClient(server)
    parent = client.get_run(run_id)
    assert (parent.data.tags["gate"], parent.data.tags["suite"]) == ("pass", "scripted")
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:/")
    children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    assert {child.data.tags["expert_set"] for child in children} == {"a", "b"}
    values = [line.value for line in run.table.column("drawn", "b", "bright").values()]
    (b,) = [child for child in children if child.data.tags["expert_set"] == "b"]
    assert b.data.metrics["drawn/bright/mean"] == pytest.approx(sum(value for value in values if value) / 64)
    traces = client.search_traces(locations=[parent.info.experiment_id], run_id=b.info.run_id, max_results=500)
    numbers = {trace.info.tags["sample"]: trace.info.assessments[0].value for trace in traces}
    assert numbers == {sample: line.value for (sample, _), line in run.table.column("drawn", "b", "bright").items()}
    # The page is in the bucket, byte for byte, and comes back through the server.
    files = fsspec.filesystem("s3", use_listings_cache=False, **bucket["blob_options"])
    (page,) = [name for name in files.find(BUCKET) if name.endswith(f"{run_id}/artifacts/report.html")]
    assert files.cat(page) == (run.folder / "report.html").read_bytes()
    (again,) = [one for one in client.list_artifacts(run_id) if one.path == "scores.parquet"]
    assert again.file_size == (run.folder / "scores.parquet").stat().st_size
    assert main(["eval", "log", str(run.folder)]) == 0 and capsys.readouterr().out.strip() == run_id


def test_a_champion_is_promoted_and_found_over_the_server(untrained_set: Path, server: str, monkeypatch) -> None:
    from careedit.experts import load_expert_set
    from careedit_eval.editors import resolve_arm
    from careedit_eval.suite import Arm
    from careedit_eval.tracking import promote, tracking

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    facts = resolve_arm(Arm(name="x", expert_set=str(untrained_set))).facts
    with tracking(server):
        assert promote(facts, run_id=None, reason="PASS") == "1"
    assert load_expert_set("models:/untrained@champion").sha256 == facts["sha256"]


def test_a_restored_backup_has_the_runs_their_pages_and_the_champion(
    run: Run,
    untrained_set: Path,
    server: str,
    database: str,
    postgres: str,
    bucket: dict[str, Any],
    spare_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The backup of docs/kubernetes.md: pg_dump and a copy of the bucket, in another database and another bucket."""
    from mlflow import MlflowClient

    from careedit.experts import load_expert_set
    from careedit_eval.editors import resolve_arm
    from careedit_eval.suite import Arm
    from careedit_eval.tracking import promote, tracking

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert main(["eval", "log", str(run.folder)]) == 0
    run_id = capsys.readouterr().out.strip()
    facts = resolve_arm(Arm(name="x", expert_set=str(untrained_set))).facts
    with tracking(server):
        promote(facts, run_id=run_id, reason="PASS")
    dump = tmp_path / "mlflow.dump"
    pg_program("pg_dump", "--format", "custom", "--file", str(dump), database)
    files = fsspec.filesystem("s3", use_listings_cache=False, **bucket["blob_options"])
    for name in files.find(BUCKET):
        files.copy(name, name.replace(BUCKET, f"{spare_bucket}/mlflow", 1))
    restored = postgres.replace("/postgres", "/restored_mlflow")
    pg_program("createdb", "--maintenance-db", postgres, "restored_mlflow")
    pg_program("pg_restore", "--exit-on-error", "--dbname", restored, str(dump))
    files.rm(BUCKET, recursive=True)
    with tracking_server(restored, f"s3://{spare_bucket}/mlflow", bucket, tmp_path) as url:
        page = MlflowClient(url).download_artifacts(run_id, "report.html", str(tmp_path))
        assert Path(page).read_bytes() == (run.folder / "report.html").read_bytes()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        assert load_expert_set("models:/untrained@champion").sha256 == facts["sha256"]
