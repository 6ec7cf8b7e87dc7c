"""`careedit eval judge-check`: a judge against votes and published pairs, and the rule of a suite about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from careedit.cli.main import main
from careedit_eval.judges import read_published
from careedit_eval.suite import Gate, JudgeRule
from published import IMAGE
from scripted_eval import arm, file_of, finished, suite

LOOSE = JudgeRule(floors={"accuracy_2": 0.7}, min_groups=8)
SETS = (arm("a"), arm("b", by=60, spread=0), arm("c", by=20))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, **fields: Any) -> str:
    wanted = suite(*SETS, n=12, **fields)
    path.write_text(yaml.safe_dump(json.loads(wanted.model_dump_json())))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of three sets."""
    return str(finished(suite(*SETS, n=12), tmp_path_factory.mktemp("evaluations")).folder)


def cast(place: Path, says: Callable[[int, str], str], raters: str = "r", **changes: Any) -> str:
    """Votes of `raters` on a against b of every sample; some lines with the sets exchanged."""
    lines = []
    for number in range(12):
        for rater in raters:
            left, right = ("a", "b") if number % 2 else ("b", "a")
            said = says(number, rater)
            side = said if said not in "ab" else "left" if said == left else "right"
            vote = {"rater": rater, "benchmark": "drawn", "sample": f"s{number:03}", "left": left, "right": right}
            lines.append({**vote, "verdict": side, "at": "2026-11-30T12:00:00Z", **changes})
    file = place / "votes.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(file)


def checked(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Mapping[str, Any]:
    assert main(["eval", "judge-check", *arguments, "--json"]) == code
    found: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_judge_that_agrees_with_votes_may_decide(place: Path, run: str, capsys) -> None:
    ruled = write(
        place / "ruled.yaml", judge=LOOSE, gate=Gate(margins={"bright": 1.0}, set="b"), compare=({"a": "a", "b": "b"},)
    )
    assert main(["eval", "run", ruled]) == 2
    assert "the judge was never checked; check it with" in capsys.readouterr().err
    votes = cast(place, lambda number, rater: "b" if number else "a", "xy")
    found = checked(capsys, ruled, "--votes", votes, "--run", run, "--own", "b")
    assert found["outcome"] == "pass" and (found["pairs"], found["groups"], found["raters"]) == (12, 12, 2)
    figures = found["figures"]
    assert figures["accuracy_2"]["value"] == pytest.approx(11 / 12) and figures["retest"]["value"] == 1.0
    assert figures["alpha_people"]["value"] == 1.0 and figures["self_preference"]["value"] == pytest.approx(1 / 12)
    assert main(["eval", "run", ruled, "--json"]) == 0
    ran = json.loads(capsys.readouterr().out)["run"]
    assert main(["eval", "gate", ran]) in (0, 3)
    capsys.readouterr()
    # The next check is worse, so the run may not decide any more.
    checked(capsys, ruled, "--votes", cast(place, lambda number, rater: "a"), "--run", run, code=1)
    for command in (["gate", ran], ["promote", ran], ["run", ruled]):
        assert main(["eval", *command]) == 2
        said = capsys.readouterr().err
        assert "accuracy_2 is 0.000, below the floor of 0.7" in said and "repeat the check with" in said


def test_the_rule_names_a_file_another_judge_and_too_few_groups(place: Path, run: str, capsys) -> None:
    votes = cast(place, lambda number, rater: "b")
    rule = LOOSE.model_copy(update={"check": "judge.json"})
    ruled = write(place / "ruled.yaml", judge=rule)
    assert main(["eval", "run", ruled]) == 2
    assert "judge.json' cannot be read" in capsys.readouterr().err
    checked(capsys, ruled, "--votes", votes, "--run", run, "--to", str(place / "judge.json"))
    assert main(["eval", "run", ruled]) == 0
    capsys.readouterr()
    other = write(place / "other.yaml", judge=rule, metric={"version": 2})
    assert main(["eval", "run", other]) == 2
    assert "is of another judge (bright by none)" in capsys.readouterr().err
    strict = write(
        place / "strict.yaml", judge=JudgeRule(floors={"accuracy_3": 0.1}, check="judge.json", min_groups=13)
    )
    found = checked(capsys, strict, "--votes", votes, "--run", run, code=3)
    assert found["reason"].startswith("accuracy_3 has 0 groups of edits, of 13 that it needs")
    assert main(["eval", "run", strict]) == 2
    assert "accuracy_3 has 0 groups" in capsys.readouterr().err
    check = json.loads((place / "judge.json").read_text())
    for figures, words in (
        ({**check["figures"], "accuracy_2": {"value": float("nan")}}, "finite number"),
        ({"tau": {"value": 1.0}}, "lacks the figure 'accuracy'"),
    ):
        (place / "judge.json").write_text(json.dumps({**check, "figures": figures}))
        assert main(["eval", "run", ruled]) == 2
        said = capsys.readouterr().err
        assert "judge.json' cannot be read" in said and words in said


def test_a_judge_of_pairs_has_the_consistency_of_its_orders(place: Path, run: str, capsys) -> None:
    pairwise = {"pairwise": ({"name": "scripted_eval:sharper", "options": {}},)}
    found = checked(
        capsys, write(place / "pairs.yaml", **pairwise), "--number", "won", "--run", run, "--votes",
        cast(place, lambda number, rater: "tie" if number < 2 else "b"),
    )  # fmt: skip
    figures = found["figures"]
    assert figures["accuracy"]["value"] == pytest.approx(10 / 12) and figures["accuracy_untied"]["value"] == 1.0
    assert figures["order_consistency"]["value"] == pytest.approx(3 / 12)
    assert (
        main(["eval", "judge-check", write(place / "pairs.yaml", **pairwise), "--number", "agreed", "--pairs", "x"])
        == 2
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sample": "s999"}, "votes.jsonl, line 1: the run "),
        ({"run": "20261101-other"}, "votes.jsonl, line 1 is a vote on 20261101-other, not on the run "),
        ({"left": "z", "right": "a"}, "has no set 'z', which a vote names; its sets are a, b, c"),
        ({"left": "a", "right": "a"}, "line 1: both sides are the set 'a'"),
        ({"verdict": "up"}, "line 1 is not a vote"),
        ({"weight": 2}, "line 1 is not a vote (ExportedVote has no field 'weight'"),
    ],
)
def test_a_vote_that_does_not_fit_is_refused_by_its_line(place: Path, run: str, capsys, change, words: str) -> None:
    votes = cast(place, lambda number, rater: "b", **change)
    assert main(["eval", "judge-check", write(place / "s.yaml"), "--votes", votes, "--run", run]) == 2
    assert words in capsys.readouterr().err and not (place / "eval-runs/judges").exists()


def test_other_bad_input_is_refused_in_a_sentence(place: Path, run: str, capsys) -> None:
    name = write(place / "s.yaml")
    (place / "empty.jsonl").write_text("\n")
    (place / "text.jsonl").write_text("yes\n")
    for arguments, words in (
        ([], "Give either --votes (with --run) or --pairs"),
        (["--votes", "none.jsonl", "--run", run], "The votes 'none.jsonl' cannot be read"),
        (["--votes", "empty.jsonl", "--run", run], "empty.jsonl has no votes"),
        (["--votes", "text.jsonl", "--run", run], "text.jsonl, line 1 is not a vote"),
        (["--votes", "empty.jsonl", "--run", "nowhere"], "is not a finished run"),
        (["--pairs", "nowhere"], "nowhere"),
        (["--pairs", "nowhere", "--run", run], "--run is for --votes"),
    ):
        assert main(["eval", "judge-check", name, *arguments]) == 2
        assert words in capsys.readouterr().err
    votes = cast(place, lambda number, rater: "b")
    assert main(["eval", "judge-check", name, "--votes", votes, "--run", run, "--tie", "inf"]) == 2
    assert "--tie inf is not a difference" in capsys.readouterr().err
    assert main(["eval", "judge-check", name, "--votes", votes, "--run", run, "--own", "z"]) == 2
    assert "No edit is by 'z'; the edits are by a, b" in capsys.readouterr().err
    assert main(["eval", "judge-check", name, "--votes", votes, "--run", run, "--number", "none"]) == 2
    assert "No metric of the suite gives 'none'" in capsys.readouterr().err


def image(shade: int) -> dict[str, Any]:
    return {"bytes": file_of(shade), "path": None}


def shard(file: Path, rows: list[dict[str, Any]]) -> Path:
    """A parquet file with images as the hub stores them, also in lists."""
    columns = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        kind = (
            IMAGE
            if isinstance(first, dict)
            else pa.list_(IMAGE)
            if isinstance(first, list) and isinstance(first[0], dict)
            else None
        )
        columns[name] = pa.array(values, type=kind)
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), file, row_group_size=2)
    return file


def tiger_rows(size: int, groups: int = 2) -> list[dict[str, Any]]:
    """Groups of edits, brighter ones better, with the last group turned round."""
    letters = "ABCD"[:size]
    return [
        {
            "id": f"{group:04}_{one}{other}",
            "dataset": f"{size}pair",
            "instruction": f"make it {group}",
            "source_image": image(5 + group),
            "candidate_1": image(200 - 20 * letters.index(one) + group),
            "candidate_2": image(200 - 20 * letters.index(other) + group),
            "ranking": f"{one}>{other}" if group < groups - 1 else f"{other}>{one}",
            "comparison_type": f"{one}vs{other}",
            "model_1": f"model {one}",
            "model_2": f"model {other}",
        }
        for group in range(groups)
        for place, one in enumerate(letters)
        for other in letters[place + 1 :]
    ]  # fmt: skip


def test_published_groups_of_two_three_and_four_are_read_and_judged(place: Path, capsys) -> None:
    for size in (2, 3, 4):
        shard(place / f"bench/{size}pair/train.parquet", tiger_rows(size))
    found = checked(capsys, write(place / "s.yaml"), "--pairs", "bench", "--own", "model A")
    assert (found["pairs"], found["groups"], found["source"]) == (20, 6, "EditReward-Bench of TIGER-Lab")
    assert [found["figures"][f"accuracy_{size}"]["value"] for size in (2, 3, 4)] == [0.5, 0.5, 0.5]
    assert found["figures"]["self_preference"]["value"] == pytest.approx(0.5)
    assert main(["eval", "judge-check", write(place / "s.yaml"), "--pairs", "bench"]) == 0
    said = capsys.readouterr()
    assert "order_consistency" in said.out and "20 pairs in 6 groups, published verdicts" in said.err
    assert found["source_sha256"] == read_published("bench").digest
    limited = checked(capsys, write(place / "s.yaml"), "--pairs", "bench", "--limit", "1", "--retest", "0")
    assert limited["source_sha256"] != found["source_sha256"]
    assert limited["pairs"] == 1 and limited["figures"]["retest"]["value"] is None


def test_a_published_row_that_cannot_be_used_is_named_and_the_others_count(place: Path) -> None:
    rows = tiger_rows(2, 3)
    rows[0] |= {"ranking": "C>A"}
    rows[1] |= {"ranking": "A = B"}
    found = read_published(str(shard(place / "train.parquet", rows)))
    assert found.unusable == ("train.parquet, row 1: ranking is 'C>A', not a ranking of A and B.",)
    assert [pair.preferred for pair in found.pairs] == [0, -1]


def test_the_layouts_of_editscore_and_vcreward_are_read(place: Path) -> None:
    two = [image(90), image(40)]
    row = {
        "key": ["k1", "k2"],
        "instruction": "do",
        "dimension": "overall",
        "task_type": "add",
        "input_image": image(1),
    }
    rows = [row | {"output_images": two}, row | {"output_images": two, "dimension": "consistency"}]
    (pair,) = read_published(str(shard(place / "editscore.parquet", rows)), dimension="consistency").pairs
    assert pair.preferred == 1 and pair.left.picture.read() == file_of(90) and pair.right.picture.read() == file_of(40)
    row = {"key": "add_pair_1", "instruction": "do", "task": "add", "source_image": image(1), "edited_images": two}
    rows = [row | {"winner": "Image B"}, row | {"winner": "Image A", "edited_images": two[:1]}, row | {"winner": "?"}]
    found = read_published(str(shard(place / "vc.parquet", rows)))
    assert [pair.preferred for pair in found.pairs] == [-1]
    assert [why.partition(": ")[2] for why in found.unusable] == [
        "edited_images does not hold two images.", "winner is '?', not Image A, Image B or Tie.",
    ]  # fmt: skip


def test_another_layout_and_another_dimension_are_refused(place: Path, capsys) -> None:
    shard(place / "odd.parquet", [{"instruction": "do", "picture": image(1)}])
    name = write(place / "s.yaml")
    assert main(["eval", "judge-check", name, "--pairs", "odd.parquet"]) == 2
    assert "not those of a known benchmark for judges" in capsys.readouterr().err
    row = {"key": ["k1", "k2"], "instruction": "do", "dimension": "overall", "task_type": "add"}
    shard(place / "es.parquet", [row | {"input_image": image(1), "output_images": [image(9), image(4)]}])
    assert main(["eval", "judge-check", name, "--pairs", "es.parquet", "--dimension", "taste"]) == 2
    assert "The dimension 'taste' does not exist" in capsys.readouterr().err
