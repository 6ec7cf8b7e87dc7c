"""What a reader must know of numbers is counted where the numbers are read: captions that were cut, rows that lack something."""

import json
from pathlib import Path

from careedit.cli.main import main
from careedit.cli.output import Bar
from careedit_eval.cli.work import Shown
from careedit_eval.report import analyse, write_report
from careedit_eval.runs import load_run

LONG = " ".join(["a red circle beside a blue square"] * 29)
"""Some 200 words."""
SUITE = """
name: notes
benchmarks: [{name: folder, options: {path: rows}}]
sets: [{name: identity, kind: identity}, {name: truth, kind: truth}]
rows: []
metrics: [{name: l1}, {name: clip_t, options: {protocol: tiny-v1}}, {name: clip_direction, options: {protocol: tiny-v1}}]
primary: l1
"""


def test_captions_that_were_cut_and_rows_that_lack_something_are_counted_on_the_page_and_in_the_command(
    tmp_path: Path, monkeypatch, capsys, draw_picture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    for i in range(2):
        draw_picture(seed=i).save(tmp_path / f"rows/{i}.png")
    captions = (LONG, "a red circle", LONG + " and more", "a blue square")
    rows = [
        {
            "source": "0.png",
            "target": "1.png",
            "instruction": "x",
            "source_caption": "a circle",
            "target_caption": words,
        }
        for words in captions
    ]
    rows[3]["target"] = "gone.png"
    (tmp_path / "rows/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "suite.yaml").write_text(SUITE)
    assert main(["eval", "run", "suite.yaml"]) == 0
    said = capsys.readouterr().err
    assert "clip_t: text truncated (sets identity, truth; samples row-1, row-3)" in said
    assert "clip_direction: text truncated (sets identity, truth; samples row-1, row-3)" in said
    assert "rows that lack something that they need: 1; the first, row-4: metadata.jsonl, line 4:" in said
    (folder,) = (tmp_path / "eval-runs/runs").iterdir()
    found = analyse(load_run(folder))
    counts = {one.what: one.sample_count for one in found.notes}
    assert counts["clip_t: text truncated"] == 2, "samples, however many sets were measured on them"
    page = write_report(load_run(folder), found).read_text("utf-8")
    assert "clip_t: text truncated (samples: 2;" in page and "&#39;gone.png&#39; does not exist" in page
    assert json.loads((folder / "comparison.json").read_text())["notes"]["clip_t: text truncated"] == 2


def test_a_line_of_a_log_says_how_far_a_run_is() -> None:
    bar = Bar("Working", 1)
    shown = Shown(bar)
    shown("editing", 0, 3)
    shown("editing", 2, 3)
    assert bar.line.startswith("editing: 2 of 3,") and bar.line.endswith("(67%)")
    shown("measuring", 3, 3)
    assert bar.line.startswith("measuring: 3 of 3,") and bar.line.endswith("(100%)")
