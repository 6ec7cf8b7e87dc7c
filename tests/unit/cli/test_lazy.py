"""A group takes sub-commands from an entry-point group beside its own."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

from careedit.cli.lazy import lazy_group

PLUGIN = '''"""Counts something else."""
import typer

app = typer.Typer()


@app.command("{name}")
def run(times: int = 1) -> None:
    typer.echo("{name} from elsewhere " + str(times))
'''


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A group with a command `own`; elsewhere there is `other`, and a second `own`."""
    for name in ("other", "own"):
        (tmp_path / f"lazy_{name}.py").write_text(PLUGIN.format(name=name))
        monkeypatch.delitem(sys.modules, f"lazy_{name}", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = {"some.group": [EntryPoint(name, f"lazy_{name}:app", "some.group") for name in ("other", "own")]}
    monkeypatch.setattr(metadata, "entry_points", lambda group: found.get(group, []))
    app = typer.Typer(cls=lazy_group("some.group"))

    @app.command("own")
    def own() -> None:
        typer.echo("own")

    app.callback()(lambda: None)
    return app


def test_a_command_from_elsewhere_runs_with_its_options(group):
    answer = CliRunner().invoke(group, ["other", "--times", "3"])

    assert (answer.exit_code, answer.output) == (0, "other from elsewhere 3\n")


def test_a_groups_own_command_is_not_replaced(group):
    assert CliRunner().invoke(group, ["own"]).output == "own\n"


def test_help_lists_both_and_imports_nothing(group):
    shown = CliRunner().invoke(group, ["--help"]).output

    assert "Counts something else." in shown
    assert "own" in shown
    assert "lazy_other" not in sys.modules


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("careedit.cli.bench", {"engine", "eval", "scorer", "serve", "soak"}),
        ("careedit_eval.cli.app", {"run", "gate", "quality", "filter"}),
    ],
)
def test_own_commands_and_those_of_other_packages_are_in_a_group(module, names):
    from typer.main import get_group

    assert names <= set(get_group(importlib.import_module(module).app).commands)
