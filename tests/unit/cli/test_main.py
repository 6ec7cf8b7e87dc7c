"""The root command: lazy sub-commands, one-sentence errors, exit codes."""

import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import pytest

from careedit.cli.main import GROUP, NO_TELEMETRY, main

LACKS = "needs the package 'no_such_package', which is not installed"

PLUGIN = '''"""Do things to plug in.

Not shown in the list.
"""
import typer
from careedit import errors
from careedit.cli.output import keeping, note

app = typer.Typer()


@app.command()
def {name}(what: str, times: int = 1) -> None:
    if what == "boom":
        raise RuntimeError("the first line\\nthe second line")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "interrupt-kept":
        with keeping(lambda: "outer"), keeping(lambda: "two edits are in new; run the same command again."):
            raise KeyboardInterrupt
    if what == "note":
        note("a note")
    if what == "no":
        raise typer.Exit(1)
    if what not in ("fine", "note"):
        raise getattr(errors, what)("A sentence that says what to do.")
    typer.echo(" ".join([what] * times))
'''


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Four plug-ins: a plain command, a group of one command, one that lacks its extra, one that is not there."""
    (tmp_path / "fake_plain.py").write_text(PLUGIN.format(name="plain"))
    (tmp_path / "fake_group.py").write_text(PLUGIN.format(name="inner"))
    (tmp_path / "fake_extra.py").write_text('"""Needs something."""\nimport no_such_package\n')
    (tmp_path / "fake_broken.py").write_text('"""Broken."""\n1 / 0\n')
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        EntryPoint("plain", "fake_plain:app", GROUP),
        EntryPoint("group", "fake_group:app", GROUP),
        EntryPoint("extra", "fake_extra:app [serve]", GROUP),
        EntryPoint("bare", "fake_extra:app", GROUP),
        EntryPoint("broken", "fake_broken:app", GROUP),
        EntryPoint("gone", "fake_gone.cli:app", GROUP),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries)
    monkeypatch.delenv("CAREEDIT_DEBUG", raising=False)
    yield
    for name in ("fake_plain", "fake_group", "fake_extra", "fake_broken"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("plugins")
def test_help_lists_every_plug_in_by_its_first_line_and_imports_none(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "Do things to plug in." in shown
    assert "Not shown in the list." not in shown
    assert "(not in this installation)" in shown
    assert not {"fake_plain", "fake_group", "fake_extra", "fake_broken"} & sys.modules.keys()


@pytest.mark.usefixtures("plugins")
def test_one_command_of_the_entrys_name_is_a_plain_command(capsys):
    assert main(["plain", "fine", "--times", "2"]) == 0
    assert capsys.readouterr().out == "fine fine\n"
    assert "fake_group" not in sys.modules


@pytest.mark.usefixtures("plugins")
def test_one_command_of_another_name_stays_in_its_group(capsys):
    assert main(["group", "inner", "fine"]) == 0
    assert capsys.readouterr().out == "fine\n"


@pytest.mark.usefixtures("plugins")
def test_a_command_keeps_libraries_from_reporting_their_use_unless_the_user_wants_it(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    assert main(["plain", "fine"]) == 0
    assert {name: os.environ[name] for name in NO_TELEMETRY} == {"RAY_USAGE_STATS_ENABLED": "1", "DO_NOT_TRACK": "true"}


def test_ray_mlflow_and_the_hub_take_these_settings_for_a_no():
    asks = """
from huggingface_hub import constants
from mlflow.telemetry.utils import is_telemetry_disabled
from ray._common.usage.usage_lib import usage_stats_enabled
print(usage_stats_enabled(), is_telemetry_disabled(), constants.HF_HUB_DISABLE_TELEMETRY)
"""
    own = ("RAY_USAGE", "MLFLOW", "HF_", "CI", "DO_NOT_TRACK", "PYTEST")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)} | NO_TELEMETRY
    answer = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "True", "True"]


@pytest.mark.usefixtures("plugins")
def test_a_sub_commands_help_names_the_whole_command(capsys):
    assert main(["group", "inner", "--help"]) == 0
    assert "careedit group inner" in capsys.readouterr().out


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("InputError", 2),
        ("MaskError", 2),
        ("ExpertError", 2),
        ("AdapterError", 2),
        ("ReplayError", 1),
        ("CareEditError", 1),
    ],
)
def test_an_error_of_ours_is_one_sentence_and_its_exit_code(kind, code, capsys):
    assert main(["plain", kind]) == code
    assert capsys.readouterr() == ("", "error: A sentence that says what to do.\n")


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plain"], "Missing argument"),
        (["plain", "fine", "--times", "x"], "--times"),
        (["plain", "fine", "--what"], "No such option: --what"),
        (["plane"], "Did you mean 'plain'?"),
        (["group", "other"], "No such command 'other'"),
        (["--nonsense"], "No such option: --nonsense"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(arguments, sentence, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert sentence in shown.err
    assert shown.err.startswith("error: ")
    assert "--help'" in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.usefixtures("plugins")
def test_a_surprise_is_one_line_without_a_stack_trace(capsys):
    assert main(["plain", "boom"]) == 1
    shown = capsys.readouterr().err
    assert shown == (
        "error: Unexpected RuntimeError: the first line the second line "
        "(run `careedit --debug ...` for the stack trace).\n"
    )


@pytest.mark.usefixtures("plugins")
def test_debug_shows_the_stack_trace(capsys, monkeypatch):
    assert main(["--debug", "plain", "boom"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("CAREEDIT_DEBUG", "1")
    assert main(["plain", "InputError"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.usefixtures("plugins")
def test_an_interrupt_exits_130_and_says_what_is_kept(capsys):
    assert main(["plain", "interrupt"]) == 130
    assert capsys.readouterr().err.strip() == (
        "error: Interrupted; no result was written. The same command starts again."
    )
    assert main(["--quiet", "plain", "interrupt-kept"]) == 130
    assert capsys.readouterr().err.strip() == "error: Interrupted; two edits are in new; run the same command again."


@pytest.mark.usefixtures("plugins")
def test_quiet_shows_results_and_errors_only(capsys):
    assert main(["--quiet", "plain", "note"]) == 0
    assert capsys.readouterr() == ("note\n", "")
    assert main(["plain", "note"]) == 0
    assert capsys.readouterr() == ("note\n", "a note\n")
    assert main(["--quiet", "plain", "InputError"]) == 2
    assert capsys.readouterr().err == "error: A sentence that says what to do.\n"
    assert main(["--quiet", "--debug", "plain", "fine"]) == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.usefixtures("plugins")
def test_an_explicit_code_is_kept():
    assert main(["plain", "no"]) == 1


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("extra", f"The command 'extra' {LACKS}; install it with: pip install 'careedit[serve]'"),
        ("bare", f"The command 'bare' {LACKS}; reinstall careedit, or install that package."),
        ("gone", "The command 'gone' is not in this installation (fake_gone.cli is missing); reinstall careedit."),
        ("broken", "Unexpected ZeroDivisionError: division by zero (run `careedit --debug ...` for the stack trace)."),
    ],
)
def test_a_plug_in_that_does_not_import_says_what_to_do(name, sentence, capsys):
    assert main([name]) == 1
    assert capsys.readouterr() == ("", f"error: {sentence}\n")


@pytest.mark.usefixtures("plugins")
def test_no_arguments_show_the_help_and_exit_2(capsys):
    assert main([]) == 2
    assert "Usage: careedit" in capsys.readouterr().out


def test_the_version_is_the_distributions(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"careedit {metadata.version('careedit')}\n"


def test_the_real_help_imports_no_torch():
    script = (
        "import json, sys; from careedit.cli.main import main; code = main(['--help']); "
        "sys.stderr.write(json.dumps([code, sorted({'torch', 'transformers', 'ray'} & sys.modules.keys())]))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(answer.stderr) == [0, []]
    assert "edit" in answer.stdout
