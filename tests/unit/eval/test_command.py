"""`careedit eval`: what a user types, on scripted sets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from careedit.cli.main import main
from careedit_eval.cli.work import SUITES
from careedit_eval.suite import Gate, load_suite
from scripted_eval import arm, suite


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, *arms, **fields) -> str:
    wanted = suite(*arms, **fields)
    path.write_text(yaml.safe_dump(json.loads(wanted.model_dump_json())))
    return str(path)


def gated(path: Path, by: int) -> str:
    gate = Gate(margins={"bright": 0.01})
    return write(path, arm("a"), arm("b", by=by), n=64, compare=({"a": "a", "b": "b"},), gate=gate)


def test_a_night_ends_with_a_verdict_a_page_and_an_exit_code(place: Path, capsys) -> None:
    assert main(["eval", "nightly", "--suite", gated(place / "good.yaml", 55), "--no-log"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("PASS: b may replace a: bright on drawn +0.0")
    assert main(["eval", "nightly", "--suite", gated(place / "bad.yaml", 30), "--no-log"]) == 1
    assert "WORSE: b must not replace a" in capsys.readouterr().out
    assert len(list((place / "eval-runs/runs").glob("*/report.html"))) == 2


def test_a_run_is_listed_compared_gated_and_reported_again(place: Path, capsys) -> None:
    assert main(["eval", "run", gated(place / "s.yaml", 55), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    run = told["run"]
    assert told["edited"] == 128 and told["gate"]["passed"] is True
    assert main(["eval", "list"]) == 0 and Path(run).name in capsys.readouterr().out
    assert main(["eval", "compare", "b", "a", "--json"]) == 0
    (whole, *_) = json.loads(capsys.readouterr().out)["differences"]
    assert whole["difference"] < 0
    assert main(["eval", "gate", run]) == 0
    (Path(run) / "report.html").unlink()
    assert main(["eval", "report", run]) == 0 and (Path(run) / "report.html").is_file()


def test_a_run_is_named_by_its_id_in_every_command(place: Path, capsys) -> None:
    assert main(["eval", "run", gated(place / "s.yaml", 55), "--json"]) == 0
    name = Path(json.loads(capsys.readouterr().out)["run"]).name
    (place / "eval-runs").rename(place / "elsewhere")
    out = ["--out", "elsewhere"]
    for command in (
        ["gate", name],
        ["report", name],
        ["baseline", name, "--to", "b.json"],
        ["compare", "a", "b", "--run", name],
    ):
        assert main(["eval", *command, *out]) == 0, command
    for command in (
        ["promote", name],
        ["log", name, "--votes", "no votes"],
        ["judge-check", "s.yaml", "--votes", "no votes", "--run", name],
    ):
        assert main(["eval", *command, *out]) == 2
        assert "not a finished run" not in capsys.readouterr().err


def test_a_second_run_edits_nothing_and_rescoring_never_does(place: Path, capsys) -> None:
    name = gated(place / "s.yaml", 55)
    counts = []
    for command in ("run", "run", "rescore"):
        assert main(["eval", command, name, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        counts.append((told["edited"], told["measured"]))
    assert counts == [(128, 128), (0, 0), (0, 0)]


def test_one_set_and_a_few_samples_can_be_asked_for(place: Path, capsys) -> None:
    assert main(["eval", "run", gated(place / "s.yaml", 55), "--set", "b", "--limit", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["edited"] == 4 and {one["arm"] for one in told["means"]} == {"b"} and "gate" not in told


def test_a_baseline_is_frozen_and_held_against(place: Path, capsys) -> None:
    assert main(["eval", "run", write(place / "old.yaml", arm("a"), n=64), "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert main(["eval", "baseline", run, "--to", "nowhere/frozen.json"]) == 2
    assert main(["eval", "baseline", run, "--to", "frozen.json"]) == 0
    gate = Gate(baseline="frozen.json", margins={"bright": 0.01})
    today = write(place / "new.yaml", arm("a", by=20), n=64, gate=gate)
    assert main(["eval", "nightly", "--suite", today, "--no-log"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing"], "The suite 'nothing' does not exist"),
        (["gate", "nowhere"], "is not a finished run"),
        (["compare", "a", "b"], "has no runs"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(place: Path, capsys, arguments, words: str) -> None:
    assert main(["eval", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(SUITES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_suite_that_comes_along_can_be_read_and_has_its_files_name(file: Path) -> None:
    found = load_suite(file)
    assert found.name == file.stem and found.gate is not None and found.gate.margins


def test_a_run_that_cannot_be_read_does_not_hide_the_others(place: Path, capsys) -> None:
    for content in ("{", "[]"):
        assert main(["eval", "run", write(place / "a.yaml", arm("a")), "--json"]) == 0
        (Path(json.loads(capsys.readouterr().out)["run"]) / "run.json").write_text(content)
    assert main(["eval", "run", write(place / "a.yaml", arm("a"), n=8), "--json"]) == 0
    whole = Path(json.loads(capsys.readouterr().out)["run"]).name
    assert main(["eval", "list"]) == 0
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[1:]] == [whole]
    assert told.err.count("warning: ") == 2


@pytest.mark.parametrize("content", [None, "[]", "{"])
def test_a_baseline_that_cannot_be_read_is_refused_before_the_first_edit(content, place: Path, capsys) -> None:
    if content is not None:
        (place / "frozen.json").write_text(content)
    today = write(place / "new.yaml", arm("a"), gate=Gate(baseline="frozen.json", margins={"bright": 0.01}))
    assert main(["eval", "run", today]) == 2
    assert "freeze one with" in capsys.readouterr().err and not list((place / "eval-runs").glob("runs/*"))


def test_the_command_starts_without_the_libraries_of_models() -> None:
    heavy = "('torch', 'diffusers', 'transformers', 'mlflow', 'ray')"
    code = f"import sys, careedit_eval.cli.app; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
