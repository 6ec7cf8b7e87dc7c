"""MLflow's own server is killed in the middle of logging: the next try leaves one whole run there."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from mlflow import MlflowClient

from careedit_eval.errors import TrackingError
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.suite import Gate
from careedit_eval.tracking import log_run
from scripted_eval import finished, suite

pytestmark = [
    # Of MLflow 3.17 and what it stands on, none of it under our hands.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def start_server(folder: Path, port: int) -> subprocess.Popen:
    """An MLflow server, ready to answer; it and its workers are one process group."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "files")]  # fmt: skip
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, (folder / "log").read_text()
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return server
        except httpx2.HTTPError:
            time.sleep(0.1)
    stop(server)
    raise AssertionError((folder / "log").read_text())


def stop(server: subprocess.Popen) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_a_server_that_is_killed_in_the_middle_finds_one_whole_run_afterwards(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    wanted = suite(n=8, name="server", compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.1}))
    run = finished(wanted, tmp_path)
    analysis = analyse(run)
    write_analysis(run, analysis)
    write_report(run, analysis)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri, server = f"http://127.0.0.1:{port}", start_server(tmp_path, port)
    try:
        with monkeypatch.context() as patch:
            real, calls = MlflowClient.log_batch, []

            def kill(self, *args, **kwargs):
                calls.append(1)
                if len(calls) == 4:
                    stop(server)
                return real(self, *args, **kwargs)

            patch.setattr(MlflowClient, "log_batch", kill)
            with pytest.raises(TrackingError, match="results are kept"):
                log_run(run, uri)
        server = start_server(tmp_path, port)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("eval/server").experiment_id
        left = [one.info.status for one in client.search_runs([experiment])]
        assert "RUNNING" in left, "nobody could say that it ended"
        run_id = log_run(run, uri)
        runs = client.search_runs([experiment])
        assert len(runs) == 3 and {one.info.status for one in runs} == {"FINISHED"}
        assert "report.html" in {file.path for file in client.list_artifacts(run_id)}
    finally:
        if server.poll() is None:
            stop(server)
