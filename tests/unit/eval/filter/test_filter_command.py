"""`careedit eval filter`: what is refused before anything is loaded, and what is shown."""

from __future__ import annotations

import pytest
from PIL import Image
from typer.testing import CliRunner

from careedit.errors import InputError
from careedit_tiny.cli import eval_filter


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--candidates", "two"], "--candidates 'two' is not a list of numbers; write it as 2,4."),
        (["--preview-steps", "1;2"], "is not a list of numbers"),
        (["--steps", "0"], "--steps is 0; it must be between 1 and 200."),
        (["--threads", "-1"], "--threads is -1"),
        (["--out", "nowhere/a.json"], "The folder 'nowhere' of the output does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_loaded(arguments, said, monkeypatch):
    monkeypatch.setattr(eval_filter, "load_editor", lambda *_, **__: pytest.fail("loaded"))
    result = CliRunner().invoke(eval_filter.app, arguments)
    assert isinstance(result.exception, InputError) and said in str(result.exception)


def test_a_run_is_shown_as_a_table_and_a_plot(open_editor, monkeypatch, tmp_path):
    editor = open_editor("merged")
    monkeypatch.setattr(eval_filter, "load_editor", lambda *_, **__: editor)
    few = ["--n", "2", "--steps", "2", "--candidates", "2", "--judge", "none", "--plot", str(tmp_path / "plot.png")]
    result = CliRunner().invoke(eval_filter.app, few)
    assert result.exception is None
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0][:4] == ["strategy", "M", "m", "chooser"]
    assert rows[1][:5] == ["none", "1", "0", "none", "2.0"]
    assert {row[3] for row in rows[2:]} == {"random", "oracle_preview", "oracle"}
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > plot.height > 300
    assert "No judge was given, so its rows are left out." in result.stderr
    assert "nfe_share_at_equal_compliance: not measured (at most 0.6)." in result.stderr
