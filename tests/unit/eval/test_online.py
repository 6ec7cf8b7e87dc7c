"""A/B in traffic: exports read, arms compared, false alarms counted under peeking, broken splits told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from careedit.cli.main import main
from careedit.errors import InputError
from careedit_eval.compare.differences import ALL
from careedit_eval.online import analyse_traffic, read_export
from careedit_eval.report import analyse
from careedit_eval.runs import load_run, write_json
from careedit_eval.stats import difference_sequence
from careedit_eval.suite import Part
from scripted_eval import arm, finished, suite

HEADER = {
    "kind": "header",
    "version": 2,
    "since": 0.0,
    "arms": {"a": {"expert_set": "tiny", "weight": 3}, "b": {"expert_set": "new", "weight": 1}},
    "assigned": {"a": 0, "b": 0},
    "events": [],
}


def edit(i: int, unit: str, arm: str, score: float = 0.5, **fields) -> dict:
    return {
        "kind": "edit", "id": f"e{i}", "unit": unit, "arm": arm, "dealt": True, "outcome": "made", "seconds": 1.0,
        "scores": {"overall": score}, "created": float(i), "expert_set_sha256": arm * 64, **fields,
    }  # fmt: skip


def simulated(users: int, edits: int, *, gain: float = 0.0, fail: float = 0.02, seed: int = 0, share: float = 0.25):
    """Users with tastes of their own, who come again with the same arm: their edits are not independent."""
    rng = np.random.default_rng(seed)
    arms = np.where(rng.random(users) < share, "b", "a")
    taste = rng.normal(0.6, 0.15, users)
    lines = []
    for i in range(edits):
        user = int(rng.integers(users))
        score = float(np.clip(taste[user] + rng.normal(0, 0.1) + gain * (arms[user] == "b"), 0, 1))
        outcome = "failed" if rng.random() < fail else "made"
        lines.append(edit(i, f"u{user}", str(arms[user]), score, outcome=outcome, seconds=float(rng.gamma(4, 0.5))))
    return lines


def written(path: Path, *lines: dict, **header) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in ({**HEADER, **header}, *lines)))
    return path


def test_a_better_arm_is_seen_and_the_numbers_are_users_means(tmp_path: Path) -> None:
    report = analyse_traffic(read_export(written(tmp_path / "x", *simulated(600, 3000, gain=0.15))))
    found = {one.output: one for one in report.differences}
    judge = found["judge"]
    assert (judge.a, judge.b, judge.verdict) == ("a", "b", "better")
    assert judge.interval is not None and judge.interval.low < 0.15 < judge.interval.high and judge.interval.low > 0
    assert {found[name].verdict for name in ("failed", "seconds")} == {"no difference seen"}
    assert found["rating"].verdict == found["preferred"].verdict == "too few"
    assert judge.units_a + judge.units_b == sum(arm.units for arm in report.arms) <= 600
    assert not report.broken


def test_looking_all_the_time_finds_equal_arms_different_no_oftener_than_stated(tmp_path: Path) -> None:
    alarms = 0
    for seed in range(24):
        whole = read_export(written(tmp_path / "x", *simulated(400, 900, seed=seed)))
        for seen in range(150, 901, 125):
            report = analyse_traffic(replace(whole, edits=whole.edits[:seen]))
            if any(one.verdict in ("better", "worse") for one in report.differences):
                alarms += 1
                break
    assert alarms <= 2  # 5 % of 24 is 1.2; Holm's correction holds over all numbers


def test_a_difference_looked_at_after_every_row_raises_no_more_alarms_than_stated() -> None:
    rng, alarms = np.random.default_rng(8), {0.05: 0, 0.5: 0}
    for share in alarms:
        for _ in range(80):
            values, arms = (rng.random(800) < share).astype(float), rng.random(800) < 0.3
            looks = (difference_sequence(values[:n][arms[:n]], values[:n][~arms[:n]]) for n in range(100, 801, 20))
            alarms[share] += any(look is not None and look.p < 0.05 for look in looks)
    assert max(alarms.values()) / 80 <= 0.08


def test_p_is_below_alpha_where_the_interval_leaves_zero_out() -> None:
    rng = np.random.default_rng(9)
    verdicts = set()
    for shift in np.linspace(0, 0.6, 25):
        found = difference_sequence(rng.normal(shift, 1, 300), rng.normal(0, 1, 300))
        assert found is not None
        assert (found.p < 0.05) == (not found.interval.low <= 0 <= found.interval.high)
        verdicts.add(found.p < 0.05)
    assert verdicts == {True, False}
    assert difference_sequence([1.0], [1.0, 2.0]) is None
    assert difference_sequence([0.0, 0.0], [0.0, 0.0]).p == 1.0  # type: ignore[union-attr]


def test_what_people_prefer_counts_in_comparisons_of_two_arms(tmp_path: Path) -> None:
    lines, said = [], []
    for i in range(40):
        lines += [edit(2 * i, f"u{i}", "a"), edit(2 * i + 1, f"u{i}", "b", dealt=False)]
        pair = [f"e{2 * i}", f"e{2 * i + 1}"]
        winner = None if i % 8 == 0 else pair[0 if i % 8 == 1 else 1]
        said.append({"kind": "feedback", "edits": pair, "winner": winner, "rating": None, "created": float(i)})
    said.append({"kind": "feedback", "edits": ["e0", "e2"], "winner": "e0", "rating": None, "created": 99.0})
    file = written(tmp_path / "x", *lines, *said)
    report = analyse_traffic(read_export(file))
    (found,) = [one for one in report.differences if one.output == "preferred"]
    assert (found.mean_b, found.units_b, found.verdict) == (pytest.approx((30 + 2.5) / 40), 40, "better")
    assert "40 edits were by an arm that chance did not deal" in report.notes[-1]


def test_edits_of_a_set_that_the_arm_served_before_are_left_out(tmp_path: Path) -> None:
    old = [edit(i, f"o{i}", "b", 0.0, expert_set_sha256="c" * 64) for i in range(50)]
    new = [line | {"created": line["created"] + 50, "id": f"n{line['id']}"} for line in simulated(600, 2000)]
    new[0]["expert_set_sha256"] = ""  # an edit that failed before its set was known
    report = analyse_traffic(read_export(written(tmp_path / "x", *old, *new)))
    assert [(arm.expert_set_sha256[:1], arm.older) for arm in report.arms] == [("a", 0), ("b", 50)]
    assert sum(arm.edits for arm in report.arms) == 2000
    assert "b served another expert set before; 50 edits of that set are left out" in " ".join(report.notes)


def test_a_run_stands_next_to_the_traffic_of_the_same_sets(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("careedit_eval.online.offline.OVERALL", "bright")
    run = finished(
        suite(arm("old"), arm("new", by=80, fail="s003"), n=12, pairwise=(Part(name="scripted_eval:sharper"),)),
        tmp_path,
    )
    sets = tuple(
        one.model_copy(update={"facts": {"sha256": hash_}})
        for one, hash_ in zip(run.record.sets, ("a" * 64, "b" * 64), strict=True)
    )
    write_json(run.folder / "run.json", run.record.model_copy(update={"sets": sets}).model_dump(mode="json"))
    file = written(tmp_path / "x", *simulated(600, 3000, gain=-0.15))
    assert main(["ab", "report", str(file), "--run", str(run.folder), "--json"]) == 0
    rows = {one["output"]: one for one in json.loads(capsys.readouterr().out)["offline"]}
    assert {(one["set_a"], one["set_b"], one["a"], one["b"]) for one in rows.values()} == {("old", "new", "a", "b")}
    analysis = {
        one.output: one
        for one in analyse(load_run(run.folder), pairs=(("old", "new"),)).compared[0].differences
        if one.kind == ALL
    }
    assert rows["bright"]["difference"] == analysis["bright"].difference > 0
    assert rows["bright"]["contradicts"] is True, "brighter offline, darker in traffic"
    assert rows["failed"]["difference"] == pytest.approx(1 / 12) and rows["failed"]["contradicts"] is None
    assert rows["won"]["difference"] == 0.5
    assert main(["ab", "report", str(file), "--run", run.folder.name, "--out", str(run.folder.parents[1])]) == 0
    said = capsys.readouterr()
    assert "Traffic and run contradict each other" in said.err and "judge / bright on drawn" in said.out
    write_json(run.folder / "run.json", run.record.model_dump(mode="json"))
    assert main(["ab", "report", str(file), "--run", str(run.folder)]) == 2
    assert "has no set with the hash aaaaaaaaaaaa, which the arm 'a' serves" in capsys.readouterr().err


def test_a_split_that_is_not_the_weights_is_told_before_anything_else(tmp_path: Path, capsys) -> None:
    file = written(tmp_path / "x", *simulated(600, 2000, share=0.5))
    assert main(["ab", "report", str(file), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["broken"] is True and document["split_p"] < 1e-6
    assert "the assignment is broken" in document["notes"][0]
    lost = written(tmp_path / "y", *simulated(600, 2000), assigned={"a": 100, "b": 100})
    assert analyse_traffic(read_export(lost)).broken


def test_the_command_shows_arms_numbers_and_cuts(tmp_path: Path, capsys) -> None:
    cut = [{"arm": "b", "what": "cut", "created": 5.0}]
    file = written(tmp_path / "x", *simulated(600, 2000, gain=0.15), events=cut)
    assert main(["ab", "report", str(file)]) == 0
    said = capsys.readouterr()
    rows = [line.split("\t") for line in said.out.splitlines()]
    assert ["b - a", "judge"] in [row[:2] for row in rows] and any(row[-1] == "better" for row in rows)
    assert "b left traffic or came back meanwhile" in said.err
    assert main(["ab", "report", str(file), "--against", "z"]) == 2
    assert "No arm 'z' takes traffic; the arms are a, b." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 headers"),
        ("nothing\n", "Line 1 of"),
        (json.dumps({**HEADER, "version": 1}) + "\n", "has format 1"),
        (json.dumps(HEADER) + "\n" + json.dumps(edit(1, "u", "a", outcome="made", seconds=-1)) + "\n", "Line 2 of"),
        (json.dumps(HEADER) + "\n" + 2 * (json.dumps(edit(1, "u", "a")) + "\n"), "stands twice"),
    ],
)
def test_what_is_no_export_is_refused_by_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(InputError, match=words):
        read_export(tmp_path / "x")
