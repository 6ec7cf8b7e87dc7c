"""Every command that a document names exists, with its options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from careedit.cli.main import main
from documents import blocks, without_blocks

ROOT = Path(__file__).parents[3]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
UNSTABLE = {"CHANGELOG.md", "decisions.md", "notebook.md"}
"""Pages that tell what was at some time."""


def commands(page: Path) -> list[str]:
    """Every command line with `careedit`: in the text, in blocks of bash, and in indented blocks."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    rest = without_blocks(text)
    lines = [line.strip() for language, block in blocks(text) if language == "bash" for line in block.splitlines()]
    lines += [line.strip() for line in rest.splitlines() if line.startswith("    ")]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^    .*$", "", rest, flags=re.MULTILINE))
    return [line for line in lines if re.match(r"careedit (?!(?:bench )?NAME)", line)]


def words_of(line: str) -> list[str]:
    """The words of the command: without brackets of what may be left out, and what follows a pipe."""
    words = shlex.split(line.replace("[", "").replace("]", ""), comments=True)[1:]
    ends = [index for index, word in enumerate(words) if word in ("|", "&&", ">", "...", "2>&1", "&")]
    return words[: min(ends, default=len(words))]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in UNSTABLE], ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists_with_its_options(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [
        line
        for line in dict.fromkeys(commands(page))
        if main([*words_of(line), "--help"]) != 0 and main([*words_of(line), "1", "--help"]) != 0
    ]
    assert wrong == []  # the second attempt is for an option at the end that is named without its value


def test_a_command_that_does_not_exist_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "no-such-command", "--help"]) == 2
    assert main(["keys", "revoke", "ID", "--no-such-option", "--help"]) == 2
