"""`careedit eval quality`: what is refused before anything is loaded, and what is shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from careedit.cli.main import main
from careedit_tiny.evaluation.quality import QualityReport

KINDS = {"add": {"compliance": 0.75, "ci": [0.5, 1.0], "count": 4}}
ROW = {
    "compliance": 0.75,
    "ci": [0.5, 1.0],
    "count": 4,
    "followed": 0.8,
    "preserved": 0.9,
    "by_kind": KINDS,
    "preservation_error": 0.01,
    "preservation_error_softened": 0.005,
    "l1": 0.02,
    "nfe": 8.0,
    "seconds": 0.2,
}
NOT_MET = {"goal": "at least 0.85", "bound": 0.85, "value": 0.75, "met": False}
NOT_MEASURED = {"goal": "at least 8", "bound": 8.0, "value": None, "met": None, "reason": "There is no unified LoRA."}
DOCUMENT: dict[str, Any] = {
    "rows": {"learned_top1": ROW, "unified": None},
    "goals": {"compliance": NOT_MET, "learned_minus_unified": NOT_MEASURED},
    "missing": {"unified": "There is no unified LoRA."},
    "environment": {
        "expert_set": "tiny",
        "expert_set_sha256": "ab" * 32,
        "n": 4,
        "steps": 8,
        "seed": 0,
        "threads": 1,
        "device": "cpu",
        "dtype": "float32",
    },
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces a run; holds what was asked for."""
    benches: list[Any] = []
    subject = SimpleNamespace(experts=("erase",), unified=None, learned=True)
    monkeypatch.setattr(
        "careedit_tiny.evaluation.quality.load_subject", lambda *_, **options: benches.append(options) or subject
    )
    monkeypatch.setattr(
        "careedit_tiny.evaluation.quality.measure_quality",
        lambda bench, **options: benches.extend((bench, options)) or QualityReport(DOCUMENT, ()),
    )
    return benches


def test_the_table_shows_rows_goals_and_what_is_missing_and_an_unmet_goal_is_no_failure(
    measured: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "quality", "--n", "4", "--threads", "1", "--batch", "2", "--seed", "3"]) == 0

    shown = capsys.readouterr()
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.out.splitlines()}
    assert rows["learned_top1"] == ["75.0%", "50.0% to 100.0%", "0.0100", "0.0200", "8.0", "0.200"]
    assert rows["unified"][0] == "missing"
    assert "compliance: 0.75 (at least 0.85): not met." in shown.err
    assert "learned_minus_unified: not measured (at least 8). There is no unified LoRA." in shown.err
    _, bench, options = measured
    assert (bench.plan.n, bench.plan.seed, bench.batch, options) == (4, 3, 2, {"threads": 1})


def test_an_output_file_holds_what_json_shows(
    measured: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "quality.json"

    assert main(["eval", "quality", "--json", "--out", str(out), "--cache", str(tmp_path / "cache")]) == 0

    assert json.loads(out.read_text("utf-8")) == json.loads(capsys.readouterr().out) == DOCUMENT
    assert measured


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--n", "0"], "n is 0"),
        (["--batch", "9"], "--batch is 9"),
        (["--steps", "201"], "--steps is 201"),
        (["--threads", "0"], "--threads is 0"),
        (["--oracle-seeds", "3"], "oracle_seeds is 3"),
        (["--html", "missing/page.html"], "does not exist"),
        (["--dtype", "float8"], "float8"),
    ],
)
def test_the_users_mistakes_are_reported_before_anything_is_loaded(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], measured: list[Any]
) -> None:
    assert main(["eval", "quality", *arguments]) == 2

    assert sentence in capsys.readouterr().err
    assert measured == []
