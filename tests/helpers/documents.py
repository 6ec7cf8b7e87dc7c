"""Reads and runs the code blocks of a document."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = re.compile(r"# not run by the tests: (\S.{9,})")
"""First line of a block that no test runs, with the reason."""


@dataclass(frozen=True)
class Step:
    """One thing that a page says to run."""

    language: str
    text: str

    def __str__(self) -> str:
        return self.text.splitlines()[0]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def steps(page: str) -> list[Step]:
    """The commands and scripts that are to be run: one per line of a bash block (joined at a backslash)."""
    found: list[Step] = []
    for language, text in blocks(page):
        if NOT_RUN.match(text):
            continue
        if language == "python":
            found.append(Step(language, text))
        if language == "bash":
            lines = text.replace("\\\n", " ").splitlines()
            found += [Step(language, line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    return found


def without_blocks(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def run_block(language: str, text: str, folder: Path) -> None:
    """Run a block of Python or bash in `folder`, with the commands of this installation; fails if the block does."""
    line = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    answer = subprocess.run(
        line,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, f"{text}\n{answer.stdout}\n{answer.stderr}"
