"""The README's commands are run, in order, in a folder of their own, as a reader would type them.

A ```bash block that cannot be run here starts with a comment `# not run by the tests: REASON`. `make demo` stands for what
it ends with, `careedit demo`, whose server is used by the commands below it; `make test` would start this test again, so it
is only held to be a target that `.ci/run` calls too. A ```python block is run after the commands above it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from documents import NOT_RUN, Step, blocks, run_block, steps

if TYPE_CHECKING:
    from conftest import Demo

ROOT = Path(__file__).parents[2]
SERVED = "http://127.0.0.1:8000"
"""Where the README's reader finds the demo's server; in a test it has a port of its own."""


README = (ROOT / "README.md").read_text(encoding="utf-8")
STEPS = steps(README)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole page: a later command uses what an earlier one has written."""
    return tmp_path_factory.mktemp("readme")


def make_target(name: str) -> list[str]:
    """The command lines that `make NAME` would run once everything is installed."""
    # Under `make test` these would hand the outer make's options and variables on.
    clean = {
        key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "TESTS"}
    }
    listed = subprocess.run(
        ["make", "--dry-run", name], cwd=ROOT, capture_output=True, text=True, check=True, env=clean
    )
    return [line.strip() for line in listed.stdout.splitlines()]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_what_the_readme_says_works(step: Step, folder: Path, request: pytest.FixtureRequest) -> None:
    command = step.text
    if command == "make test":
        line = make_target("test")[-1]
        assert ".venv/bin/python -m pytest" in line and line.endswith("tests/unit tests/integration tests/e2e")
        assert command in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
        return
    if command == "make demo":
        assert make_target("demo")[-1] == ".venv/bin/careedit demo"
        demo: Demo = request.getfixturevalue("demo")
        assert (demo.folder / "demo/index.html").is_file()
        return
    if SERVED in command:
        demo = request.getfixturevalue("demo")
        command = command.replace(SERVED, json.loads(demo.printed.read_text("utf-8"))["url"])
    assert not command.startswith("make "), "say here what another make target stands for"
    run_block(step.language, command, folder)


def test_the_readme_starts_with_its_two_commands() -> None:
    assert [step.text for step in STEPS[:2]] == ["make demo", "make test"]


def test_every_block_says_its_language_and_every_block_left_out_says_why() -> None:
    assert README.count("```") == 2 * len(blocks(README))
    for language, text in blocks(README):
        if language == "bash" and "not run by the tests" in text:
            assert NOT_RUN.match(text), f"give the reason in the block's first line:\n{text}"


def test_a_line_that_ends_in_a_backslash_is_one_command() -> None:
    page = "```bash\n# a remark\nmake demo\na \\\n  b\n```\n```bash\n# not run by the tests: needs a GPU\nc\n```\n"
    assert [re.sub(r"\s+", " ", step.text) for step in steps(page)] == ["make demo", "a b"]


def test_every_relative_link_of_the_documents_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
