"""`careedit train expert`: a recipe or own rows, and never a guess between them."""

import pytest

from careedit.cli.main import main

OWN = ("--base", "tiny", "--name", "logo", "--out", "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Neither a RECIPE nor --data"),
        (("erase", "--data", "rows"), "Both the recipe 'erase' and --data"),
        (("erase", "--rank", "8"), "--rank is for own rows"),
        (("erase", "--panel-size", "64"), "--panel-size is for own rows"),
        (("nothing",), "has a recipe for the expert 'nothing'"),
        (("--data", "rows", "--base", "tiny", "--out", "out"), "--name is missing"),
        (("--data", "rows", "--name", "logo", "--out", "out"), "--base is missing"),
        (("--data", "rows", "--name", "logo", "--base", "tiny"), "--out is missing"),
        (("--data", "rows", *OWN, "--on-bad", "ignore"), "--on-bad is 'ignore'"),
        (("--data", "rows", *OWN, "--align", "tilt"), "--align is 'tilt'"),
        (("--data", "rows", *OWN, "--columns", "source"), "ROLE=COLUMN"),
        (("--data", "rows", *OWN, "--rank", "0"), "rank 0 is outside"),
        (("--data", "rows", *OWN, "--held-out", "1"), "held-out share 1.0"),
        (("--data", "rows", "--base", "tiny", "--name", "Bad Name", "--out", "out"), "'Bad Name' cannot be used"),
        (("--data", "rows", *OWN, "--handles", "A B"), "does not accept 'A B' for its field 'handles.0'"),
        (("--data", "rows", *OWN), "file or folder 'rows' does not exist"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "expert", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []
