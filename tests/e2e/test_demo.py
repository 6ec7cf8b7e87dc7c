"""The demo as a new user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_demo_writes_a_page_of_judged_edits(tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("careedit"),
        "demo",
        "--count",
        "13",
        "--out",
        tmp_path / "demo",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    page = (tmp_path / "demo" / "index.html").read_text("utf-8")
    assert page.count("<article>") == result["count"] == 13
    assert len(list((tmp_path / "demo" / "pictures").glob("*.png"))) == 13
    assert sum(row["right"] for row in result["by_kind"].values()) == result["right"]
    assert len(result["by_kind"]) == 12
    for caption in ("before", "after", "truth", "mask", "reference"):
        assert f">{caption}</figure>" in page
