"""`careedit eval plan-size`: how many pictures a margin needs, from a run or an assumption, and the simulated statistics."""

import json
from pathlib import Path

import pytest
import yaml

from careedit.cli.main import main
from careedit_eval.suite import Gate
from scripted_eval import arm, suite


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(margin: float = 0.02, n: int = 80) -> str:
    wanted = suite(
        arm("a"), arm("b", spread=60), n=n, compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": margin})
    )
    Path("s.yaml").write_text(yaml.safe_dump(json.loads(wanted.model_dump_json())))
    return "s.yaml"


def planned(capsys, *options: str) -> tuple[int, dict]:
    code = main(["eval", "plan-size", written(), "--json", *options])
    said = capsys.readouterr().out
    return code, json.loads(said) if said else {}


def test_an_assumed_share_of_flips_says_how_many_pictures_a_margin_needs(capsys) -> None:
    code, told = planned(capsys, "--flips", "0.05", "--margin", "bright=0.03", "--margin", "bright/Add=0.1")
    whole, add = told["needs"]
    assert code == 3 and not told["enough"]
    assert (whole["images"], whole["has"], whole["hours"]) == ([512, 819], 40, [None, None])
    assert (add["kind"], add["has"], add["margin"]) == ("Add", 40, 0.1) and add["images"][0] < 100


def test_a_suite_that_has_enough_ends_with_zero_and_never_less_than_the_gate_asks(capsys) -> None:
    code, told = planned(capsys, "--sd", "0.01", "--margin", "bright=0.02")
    assert code == 0 and told["enough"] and told["needs"][0]["images"] == [30, 30]


def test_the_last_run_says_how_numbers_vary_and_how_long_pictures_take(capsys) -> None:
    assert main(["eval", "run", written(), "--json"]) == 0
    gate = json.loads(capsys.readouterr().out)["gate"]
    _, told = planned(capsys)
    (need,) = told["needs"]
    assert need["images"][0] == gate["checks"][0]["needed"] > 30
    # Two edits of half a second for each of a picture's two rows, and what measuring took.
    assert need["hours"][0] == pytest.approx(need["images"][0] * 2 / 3600, rel=0.5)
    assert main(["eval", "plan-size", "s.yaml", "--margin", "bright=0.02"]) in (0, 3)
    assert "taken from the run 2" in capsys.readouterr().err
    assert main(["eval", "plan-size", "s.yaml", "--margin", "dark=0.1"]) == 2
    assert "has no number 'dark'; it has bright" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "warned"), [("80", False), ("12", True)])
def test_a_run_of_few_pictures_is_warned_about(capsys, limit: str, warned: bool) -> None:
    main(["eval", "run", written(), "--limit", limit])
    assert main(["eval", "plan-size", "s.yaml"]) in (0, 3)
    assert ("warning: that run has 6 source images" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "This suite has no earlier run"),
        (["--flips", "1.5"], "share of flips is 1.5"),
        (["--flips", "0.1", "--sd", "0.1"], "either a share of flips or"),
        (["--sd", "0.1", "--margin", "bright"], "is not a margin"),
        (["--sd", "0.1", "--margin", "bright=-1"], "is not a margin"),
        (["--flips", "0.05", "--margin", "bright/Ad=0.1"], "the kinds are Add, Remove"),
    ],
)
def test_what_says_nothing_of_the_size_is_refused(capsys, options: list[str], words: str) -> None:
    assert main(["eval", "plan-size", written(), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_run_of_some_sets_only_is_not_the_one_to_plan_from(capsys) -> None:
    assert main(["eval", "run", written()]) == 0
    assert main(["eval", "run", written(), "--set", "a"]) == 0
    capsys.readouterr()
    assert planned(capsys, "--margin", "bright=0.5")[0] == 0
