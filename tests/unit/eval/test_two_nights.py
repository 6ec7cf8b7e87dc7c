"""`careedit eval compare RUN_A RUN_B`: runs of different nights, paired where they can be, refused by name where not."""

import json
from pathlib import Path

import pytest

from careedit.cli.main import main
from careedit_eval.runs import Run
from careedit_eval.suite import Gate
from scripted_eval import arm, finished, suite

GATE = Gate(margins={"bright": 0.01}, max_slowdown=1.5)


def night(folder: Path, name: str, *, by: int, n: int = 64, **fields) -> Run:
    gate = fields.pop("gate", GATE)
    return finished(
        suite(arm("a"), arm("b", by=by), n=n, compare=({"a": "a", "b": "b"},), gate=gate, **fields), folder, name
    )


def compared(capsys, *words: object) -> tuple[int, str, str]:
    code = main(["eval", "compare", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_two_nights_are_paired_and_judged_by_the_gate_of_the_second(tmp_path, capsys, monkeypatch) -> None:
    first, second = night(tmp_path, "20261101-010000-x", by=50), night(tmp_path, "20261102-010000-x", by=60)
    code, out, err = compared(capsys, first.folder, second.folder)
    assert code == 0 and out.splitlines()[-1].startswith(
        "PASS: b@20261102-010000 may replace b@20261101-010000: bright on drawn +0.0"
    )
    assert "Time is not judged" in err
    monkeypatch.chdir(tmp_path)
    code, out, _ = compared(capsys, second.record.id, first.record.id, "--out", ".", "--html", "two.html")
    assert code == 1 and "WORSE: b@20261101-010000 must not replace b@20261102-010000" in out
    page = Path("two.html").read_text("utf-8")
    assert "WORSE: b@20261101-010000" in page and page.count('class="shot"') == 12 and 'class="missing"' not in page
    assert not (first.folder / "report.html").exists()
    code, out, _ = compared(capsys, first.folder, second.folder, "--set-a", "a", "--json")
    found = json.loads(out)
    assert code == 0 and (found["a"], found["b"]) == ("a@20261101-010000", "b@20261102-010000")
    assert found["differences"][0]["pairs"] == 64 and found["gate"]["outcome"] == "pass"


@pytest.mark.parametrize(
    ("changes", "named", "left_out"),
    [
        ({"n": 68}, "drawn has other rows in one", "Only 64 rows of drawn are compared"),
        ({"seeds": (0, 3)}, "other seeds, 0 and 0, 3", "Only the seeds 0 are compared"),
        (
            {"metrics": ({"name": "scripted_eval:brightness"}, {"name": "two_nights:dull", "options": {"version": 2}})},
            "dull was measured in two ways (code_version: 1 / 2)",
            "dull is left out: it was measured in two ways (code_version: 1 / 2)",
        ),
    ],
)  # fmt: skip
def test_what_differs_is_refused_by_name_or_left_out(tmp_path, capsys, changes, named, left_out) -> None:
    both = ({"name": "scripted_eval:brightness"}, {"name": "two_nights:dull"})
    first = night(tmp_path, "one", by=50, metrics=both)
    second = night(tmp_path, "two", by=60, **{"metrics": both, **changes})
    code, _, err = compared(capsys, first.folder, second.folder)
    assert code == 2 and named in err and "--common" in err
    code, out, err = compared(capsys, first.folder, second.folder, "--common")
    assert code == 0 and left_out in err and out.splitlines()[-1].startswith("PASS: b@two may replace b@one")


def test_rows_that_changed_between_the_nights_are_not_paired(tmp_path, capsys, monkeypatch) -> None:
    import scripted_eval

    rows = scripted_eval.Drawn.rows
    first = night(tmp_path, "one", by=50)
    monkeypatch.setattr(
        scripted_eval.Drawn, "rows",
        lambda self: (row.model_copy(update={"instruction": "other"}) if row.id == "s000" else row for row in rows(self)),
    )  # fmt: skip
    second = night(tmp_path, "two", by=60)
    code, _, err = compared(capsys, first.folder, second.folder, "--common")
    assert code == 2 and "The rows of drawn have changed since one" in err


def test_other_code_is_part_of_the_difference_and_is_named(tmp_path, capsys) -> None:
    first, second = night(tmp_path, "one", by=50), night(tmp_path, "two", by=60)
    data = json.loads((first.folder / "run.json").read_text())
    data["environment"] |= {"torch": "1.0"}
    (first.folder / "run.json").write_text(json.dumps(data))
    code, _, err = compared(capsys, first.folder, second.folder)
    assert code == 0 and "other code, which is part of the difference: torch 1.0 / " in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("one", "b"), "'b' is not a finished run; give two runs"),
        (("one", "one"), "the same set of the same run"),
        (("a", "b", "--common"), "--common and --html are for two runs"),
        (("one", "two", "--set-b", "c"), "The run two has no set 'c'; it has a, b"),
        (("one", "two", "--run", "one"), "leave it out"),
        (("one", "memory://nothing/here"), "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path, capsys, monkeypatch, words, said) -> None:
    for name in ("one", "two"):
        night(tmp_path, name, by=50, n=4)
    monkeypatch.chdir(tmp_path)
    code, _, err = compared(capsys, *words, "--out", ".")
    assert code == 2 and said in err
