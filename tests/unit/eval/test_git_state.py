"""A run says which commit it was made by, where there is one, and runs all the same where there is none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from careedit_eval import runs
from careedit_eval.report import analyse, write_report
from scripted_eval import finished, suite


def without_git(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", str(folder))


def refused_by_git(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "git").write_text("#!/bin/sh\necho 'fatal: detected dubious ownership in repository' >&2\nexit 128\n")
    (folder / "git").chmod(0o755)
    patch.setenv("PATH", str(folder))


def outside_a_repository(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runs, "__file__", str(folder / "runs.py"))
    patch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))


def inside_another_projects_repository(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """As where a virtual environment lies in the user's own repository."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *command], check=True)
    shutil.copy(runs.__file__, folder / "runs.py")
    patch.setattr(runs, "__file__", str(folder / "runs.py"))


@pytest.mark.parametrize(
    "place", [without_git, refused_by_git, outside_a_repository, inside_another_projects_repository]
)
def test_a_run_without_git_state_has_a_page_that_says_so(place, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "place").mkdir()
    place(tmp_path / "place", monkeypatch)
    assert runs.git_state() == {}
    run = finished(suite(), tmp_path)
    assert "git_sha" not in run.record.environment
    assert "no git state" in write_report(run, analyse(run)).read_text("utf-8")


def test_a_checkout_is_named_by_its_commit(tmp_path: Path) -> None:
    run = finished(suite(), tmp_path)
    commit = run.record.environment.get("git_sha")
    if commit is None:
        pytest.skip("these tests do not run from a checkout")
    assert f"commit {commit[:12]}" in write_report(run, analyse(run)).read_text("utf-8")
