"""`careedit scenes`: draw, judge, calibrate, ablate-masks."""

import json

import pytest

from careedit.cli.main import main


def run(capsys, *arguments):
    code = main(["scenes", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_scenes_are_drawn_and_judged_against_themselves(tmp_path, capsys):
    folder = tmp_path / "out"
    code, out, err = run(
        capsys, "draw", "--kind", "remove,identity,chain", "--n", 4, "--seed", 3, "--out", folder, "--json"
    )
    drawn = json.loads(out)
    assert code == 0 and len(drawn["samples"]) == 6 and "6 samples" in err
    assert [sample["kind"] for sample in drawn["samples"]] == [
        "remove",
        "identity",
        "chain",
        "chain",
        "chain",
        "remove",
    ]
    assert drawn["samples"][0]["id"] == "remove-101030000"
    assert (folder / "remove-101030000-source.png").exists()
    code, out, _ = run(capsys, "judge", folder, folder, "--json")
    report = json.loads(out)
    assert code == 0 and report["all"] == {
        "n": 6, "compliant": 1, "followed": 1, "preserved": 1, "missing": 0, "unreadable": 0,
    }  # fmt: skip
    assert set(report["kinds"]) == {"remove", "identity", "chain"}
    assert all(entry["compliant"] and entry["verdict"]["followed"] for entry in report["verdicts"])


def test_edits_that_are_not_there_fail_and_the_command_does_not(tmp_path, capsys):
    run(capsys, "draw", "--kind", "add", "--n", 2, "--out", tmp_path / "out")
    (tmp_path / "edited").mkdir()
    (tmp_path / "out" / "add-101000000-source.png").rename(tmp_path / "edited" / "add-101000000.png")
    (tmp_path / "edited" / "stranger.png").write_bytes(b"")
    code, out, err = run(capsys, "judge", tmp_path / "out", tmp_path / "edited")
    assert code == 0
    assert out.splitlines()[-1].split("\t") == ["all", "2", "0.0 %", "0.0 %", "50.0 %", "1", "0"]
    assert "add-101000001.png is missing" in err and "stranger.png belongs to no sample" in err
    assert "The instruction was not followed" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["draw", "--kind", "paint", "--out", "x"], "'paint' is not a kind of edit"),
        (["draw", "--n", "0", "--out", "x"], "n is 0"),
        (["draw", "--split", "holiday", "--out", "x"], "is not a split"),
        (["draw", "--size", "7", "--out", "x"], "The size is 7"),
        (["draw", "--seed", "-1", "--out", "x"], "The seed is -1"),
        (["judge", "nowhere", "nowhere"], "does not exist"),
        (["calibrate", "--n", "0"], "n is 0"),
        (["ablate-masks", "--n", "-1"], "n is -1"),
        (["draw"], "--out"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and words in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_full_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = run(capsys, "draw", "--out", tmp_path)
    assert code == 2 and "--force" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_calibrate_reports_every_picture(capsys):
    code, out, _ = run(capsys, "calibrate", "--n", 1, "--json")
    report = json.loads(out)
    assert code == 0 and report["version"] == 1
    assert {row["expected"] for row in report["rows"]} == {"pass", "reject", "either"}
    truth = report["rows"][0]
    assert truth["picture"] == "truth" and truth["right"] == 1 and truth["n"] == 1


def test_ablate_masks_reports_per_box_and_background(capsys):
    code, out, _ = run(capsys, "ablate-masks", "--n", 6)
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and lines[0][:4] == ["box", "background", "n", "before"]
    assert lines[-1][:3] == ["all", "all", "18"]
    assert float(lines[-1][4]) < float(lines[-1][3])
