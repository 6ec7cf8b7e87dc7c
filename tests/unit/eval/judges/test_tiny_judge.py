"""`careedit eval judge-check` with a real judge, the packaged one, on edits of the drawn world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from careedit.cli.main import main
from careedit_eval.viewer import ViewedRun
from careedit_eval.viewer.library import sample_document


def test_the_packaged_judge_is_checked_stored_and_shown(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = {
        "name": "real",
        "benchmarks": [{"name": "tiny_humanedit", "options": {"rows": 6}}],
        "sets": [{"name": "nothing", "kind": "identity"}, {"name": "right", "kind": "truth"}],
        "rows": [],
        "metrics": [{"name": "vqa"}],
        "pairwise": [{"name": "pairwise"}],
        "primary": "vqa_overall",
    }
    Path("real.yaml").write_text(yaml.safe_dump(wanted))
    assert main(["eval", "run", "real.yaml", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    viewed = ViewedRun(run)
    ids = sorted({line.sample_id for line in viewed.run.table.edits})
    judges = sample_document(viewed, viewed.run.table.benchmarks[0], ids[0], 0)["arms"]["right"]["answers"]
    assert [(one["metric"], one["rival"], len(one["answers"])) for one in judges] == [
        ("vqa", None, 3),
        ("pairwise", "nothing", 2),
    ]
    assert all(answer["reply"].startswith("P(yes) = ") for one in judges for answer in one["answers"])
    votes = [
        {"rater": rater, "benchmark": viewed.run.table.benchmarks[0], "sample": name, "left": "right", "right": "nothing"}
        | {"verdict": "left", "at": "2026-11-30T12:00:00Z"}
        for name in ids for rater in ("x", "y")
    ]  # fmt: skip
    Path("votes.jsonl").write_text("".join(f"{json.dumps(vote)}\n" for vote in votes))
    checks = {}
    for number in ("vqa_overall", "pairwise_win"):
        assert (
            main(
                [
                    "eval",
                    "judge-check",
                    "real.yaml",
                    "--votes",
                    "votes.jsonl",
                    "--number",
                    number,
                    "--retest",
                    "2",
                    "--json",
                ]
            )
            == 0
        )
        checks[number] = json.loads(capsys.readouterr().out)
    scores, pairs = (checks[number]["figures"] for number in ("vqa_overall", "pairwise_win"))
    # It was trained to know a right edit from an unedited source.
    assert scores["accuracy_2"]["value"] >= 0.75 and scores["retest"]["value"] == 1.0
    assert checks["vqa_overall"]["metric_key"] == viewed.run.record.metric_keys["vqa_overall"]
    table = viewed.run.table
    stored = [line.value for line in table.scores if line.output == "pairwise_consistent"]
    assert pairs["order_consistency"]["value"] == pytest.approx(sum(stored) / len(stored)) and pairs["retest"]["n"] == 2
