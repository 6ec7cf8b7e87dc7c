"""Which runs may not make a champion: limited, narrowed, of unknown extent, inconclusive, worse."""

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


def ran(capsys, *options: str, by: int = 55, n: int = 64) -> str:
    wanted = suite(
        arm("a"), arm("b", by=by), n=n, compare=({"a": "a", "b": "b"},), gate=Gate(margins={"bright": 0.05}, set="b")
    )
    Path("s.yaml").write_text(yaml.safe_dump(json.loads(wanted.model_dump_json())))
    main(["eval", "run", "s.yaml", "--json", *options])
    return json.loads(capsys.readouterr().out)["run"]


@pytest.mark.parametrize("options", [["--limit", "62"], ["--set", "a", "--set", "b"], ["--set", "b", "--limit", "2"]])
def test_a_run_of_a_part_of_its_suite_makes_no_champion(capsys, options: list[str]) -> None:
    run = ran(capsys, *options)
    assert main(["eval", "promote", run]) == 2
    assert f"it was made with {options[-2]} {options[-1]}" in capsys.readouterr().err or len(options) > 2


def test_a_run_that_does_not_say_how_much_was_run_makes_no_champion_but_is_read(capsys) -> None:
    file = Path(ran(capsys)) / "run.json"
    data = json.loads(file.read_text())
    assert data.pop("narrowed") == {"limit": None, "sets": []}
    file.write_text(json.dumps(data))
    assert main(["eval", "gate", str(file.parent)]) == 0
    assert main(["eval", "promote", str(file.parent)]) == 2
    assert "does not record whether it was made with --limit" in capsys.readouterr().err


@pytest.mark.parametrize(("by", "n", "code", "word"), [(50, 20, 3, "INCONCLUSIVE"), (20, 64, 1, "WORSE")])
def test_a_gate_that_did_not_pass_makes_no_champion(capsys, by: int, n: int, code: int, word: str) -> None:
    assert main(["eval", "promote", ran(capsys, by=by, n=n)]) == code
    assert word in capsys.readouterr().err


def test_a_night_too_small_for_its_margins_is_inconclusive(capsys) -> None:
    ran(capsys)
    assert main(["eval", "nightly", "--suite", "s.yaml", "--limit", "2", "--no-log"]) == 3
    assert "has 1" in capsys.readouterr().out.splitlines()[-1]
