"""The viewer's server: every sample of a run in a folder or a bucket, for pages of this machine only."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import fsspec
import numpy as np
import pytest
from PIL import Image

from careedit.cli.main import main
from careedit.errors import InputError
from careedit_eval.report import analyse, write_analysis
from careedit_eval.suite import Gate, Part
from careedit_eval.viewer import Library, ViewedRun, make_server
from careedit_eval.viewer.library import sample_document
from scripted_eval import arm, finished, suite, with_traces


def made(folder: Path, name: str = "20261101-one", *, by: int = 60, **fields) -> Path:
    wanted = suite(
        arm("a"), arm("b", by=by, fail="s003"), n=6, rows=("truth",), compare=({"a": "a", "b": "b"},),
        gate=Gate(margins={"bright": 0.01}), **fields,
    )  # fmt: skip
    run = with_traces(finished(wanted, folder, name))
    write_analysis(run, analyse(run))
    return run.folder


@dataclass
class Client:
    """Asks a running viewer."""

    port: int
    run: str = "20261101-one"

    def ask(self, path: str, *, host: str = "localhost", method: str = "GET", **query: object):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(
            method, f"{path}?{urlencode(query)}" if query else path, headers={"Host": f"{host}:{self.port}"}
        )
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.headers, data

    def json(self, path: str, **query: object):
        status, _, data = self.ask(path, **query)
        assert status == 200, data
        return json.loads(data)

    def picture(self, path: str, **query: object) -> Image.Image:
        status, headers, data = self.ask(path, run=self.run, benchmark="drawn", **query)
        assert (status, headers["Content-Type"]) == (200, "image/png"), data
        return Image.open(io.BytesIO(data))


@contextmanager
def viewing(*addresses: object) -> Iterator[Client]:
    server = make_server(Library([ViewedRun(str(address)) for address in addresses]), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Client(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("evals")
    made(place, "20261102-two", by=70)
    return made(place)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with viewing(folder) as found:
        yield found


def test_a_run_is_columns_of_samples_numbers_experts_and_errors(client: Client) -> None:
    found = client.json("/api/run", run=client.run)
    assert [one["id"] for one in found["samples"]] == [f"s{i:03}" for i in range(6)]
    assert found["samples"][1]["kind"] == "Remove" and found["pair"] == ["a", "b"] and found["primary"] == "bright"
    b = found["arms"]["b"]
    assert b["expert"] == ["style", "erase", "erase", "", "erase", "erase"]
    assert b["picture"] == [1, 1, 1, 0, 1, 1] and b["values"]["bright"][3] is None
    assert [found["errors"][place] for place in b["failed"][3]] == ["ValueError: the painter has no paint"]
    assert found["arms"]["truth"]["values"]["bright"] == [pytest.approx(200 / 255)] * 6


def test_a_sample_has_its_images_numbers_and_errors(client: Client) -> None:
    where = {"run": client.run, "benchmark": "drawn", "seed": 0}
    found = client.json("/api/sample", sample="s002", **where)
    assert (
        found["pictures"] == ["source", "target"]
        and found["warnings"] == []
        and set(found["arms"]) == {"a", "b", "truth"}
    )
    assert (
        found["arms"]["b"]["trace"]["routing"]["reason"] == "It asks for erase."
        and found["arms"]["b"]["trace_missing"] is None
    )
    (score,) = found["arms"]["a"]["scores"]
    shade = np.asarray(client.picture("/edit.png", arm="a", sample="s002", seed=0)).mean()
    assert score["value"] == pytest.approx(shade / 255)
    assert np.asarray(client.picture("/picture.png", sample="s002", role="source")).mean() == 10
    broken = client.json("/api/sample", sample="s003", **where)
    assert broken["arms"]["b"]["error"] == "ValueError: the painter has no paint"
    status, _, data = client.ask("/edit.png", arm="b", sample="s003", **where)
    assert status == 404 and "no paint" in json.loads(data)["error"]


def test_runs_next_to_it_are_shown_side_by_side_and_over_time(client: Client) -> None:
    assert client.json("/api/runs") == {"named": ["20261101-one"], "runs": ["20261101-one", "20261102-two"]}
    assert client.json("/api/run", run="20261102-two")["id"] == "20261102-two"
    nights = client.json("/api/history")
    assert [night["id"] for night in nights] == ["20261101-one", "20261102-two"] and nights[0]["outcome"] == "worse"
    means = [next(one for one in night["means"] if one["arm"] == "b") for night in nights]
    assert means[0]["mean"] < means[1]["mean"] and means[0]["n"] == 5 and len(means[0]["interval"]) == 2


@pytest.mark.parametrize("host", ["rebound.example", "", "127.0.0.1.rebound.example", "[::1"])
def test_a_foreign_name_reads_nothing(client: Client, host: str) -> None:
    for path in ("/", "/api/runs", "/view.js"):
        status, headers, data = client.ask(path, host=host)
        assert status == 403 and "answers only under localhost" in json.loads(data)["error"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_its_pages_may_load_only_its_own_files(client: Client) -> None:
    for path in ("/", "/view.css", "/view.js", "/state.js", "/list.js", "/sample.js", "/stage.js", "/history.js"):
        status, headers, data = client.ask(path)
        assert status == 200 and data
        assert (
            "script-src 'self'" in headers["Content-Security-Policy"]
            and "unsafe" not in headers["Content-Security-Policy"]
        )
    assert b"<script>" not in client.ask("/")[2] and b"style=" not in client.ask("/")[2]


@pytest.mark.parametrize(
    ("path", "query", "status", "said"),
    [
        ("/api/run", {"run": "../../etc"}, 404, "has no run '../../etc'"),
        ("/api/run", {}, 400, "lacks 'run'"),
        ("/edit.png", {"run": "20261101-one", "benchmark": "drawn", "arm": "a", "sample": "../x", "seed": 0}, 404, "no edit"),
        ("/edit.png", {"run": "20261101-one", "benchmark": "drawn", "arm": "a", "sample": "s001", "seed": "x"}, 404, "is not a seed"),
        ("/picture.png", {"run": "20261101-one", "benchmark": "drawn", "sample": "s001", "role": "__class__"}, 404, "has no '__class__'"),
        ("/picture.png", {"run": "20261101-one", "benchmark": "drawn", "sample": "s001", "role": "reference-9"}, 404, "has no 'reference-9'"),
        ("/../folder.py", {}, 404, "no such page"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(client: Client, path, query, status, said) -> None:
    found, _, data = client.ask(path, **query)
    assert found == status and said in json.loads(data)["error"]


def test_it_only_reads(client: Client, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.parents[1].rglob("*")}
    for method in ("POST", "PUT", "DELETE"):
        assert client.ask("/api/run", method=method)[0] == 501
    client.json("/api/sample", run=client.run, benchmark="drawn", sample="s001", seed=0)
    assert {path: path.stat().st_mtime_ns for path in folder.parents[1].rglob("*")} == before


def test_a_run_in_a_bucket_shows_its_edits_and_calls_no_code_that_it_names(folder: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(folder.parents[1]), "/bucket/evals", recursive=True)
    with viewing("memory://bucket/evals/runs/20261101-one") as client:
        assert client.json("/api/runs")["runs"] == ["20261101-one", "20261102-two"]
        assert client.picture("/edit.png", arm="a", sample="s001", seed=0).size == (8, 8)
        found = client.json("/api/sample", run=client.run, benchmark="drawn", sample="s001", seed=0)
        assert (
            found["pictures"] == [] and "'scripted_eval:drawn' is a function that the run names" in found["warnings"][0]
        )
        assert len(client.json("/api/history")) == 2


def test_rows_that_changed_since_the_run_are_named(tmp_path: Path) -> None:
    place = made(tmp_path)
    data = json.loads((place / "run.json").read_text())
    data["suite"]["benchmarks"][0] = Part(name="scripted_eval:drawn", options={"n": 4}).model_dump()
    (place / "run.json").write_text(json.dumps(data))
    with viewing(place) as client:
        found = client.json("/api/sample", run=client.run, benchmark="drawn", sample="s005", seed=0)
        assert "The rows of drawn have changed since this run" in found["warnings"][0]
        assert "has no sample 's005' any more" in found["warnings"][1]


def test_the_command_refuses_what_is_not_a_run_and_a_port_in_use(tmp_path, folder, client, capsys) -> None:
    assert main(["eval", "view", str(tmp_path)]) == 2 and "is not a finished run" in capsys.readouterr().err
    assert main(["eval", "view", "20261109-x", "--out", str(tmp_path)]) == 2
    assert "is neither a folder nor a run" in capsys.readouterr().err
    assert main(["eval", "view", str(folder), "--port", str(client.port)]) == 2
    assert "give another with --port" in capsys.readouterr().err
    with pytest.raises(InputError, match="not a finished run"):
        ViewedRun(str(tmp_path))


def test_a_judges_answers_are_stored_whole_apart_from_the_scores_and_shown_per_sample(tmp_path: Path) -> None:
    folder = made(tmp_path, metrics=(Part(name="scripted_eval:spoken"),))
    scores = [
        json.loads(line) for file in (tmp_path / "store/scores").glob("*") for line in file.read_text().splitlines()
    ]
    assert scores and not any("answers" in row for row in scores)
    viewed = ViewedRun(str(folder))
    found = {name: sample_document(viewed, "drawn", name, 0)["arms"]["a"] for name in ("s000", "s001")}
    (judge,) = found["s000"]["answers"]
    assert (judge["metric"], judge["rival"]) == ("bright", None)
    assert judge["answers"] == [
        {"about": "light", "asked": "How bright?", "reply": f"{found['s000']['scores'][0]['value']:.3f}", "error": None}
    ]
    assert found["s001"]["answers"][0]["answers"][0]["reply"] == "Rather\nbright."
    assert found["s001"]["scores"][0]["error"] is not None
    for file in (tmp_path / "store/answers").glob("*"):
        file.write_text("{\n")
    assert sample_document(ViewedRun(str(folder)), "drawn", "s000", 0)["arms"]["a"]["answers"] == []
