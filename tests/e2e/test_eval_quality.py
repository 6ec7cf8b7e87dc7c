"""`careedit eval quality` as a user runs it, small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_packaged_set_is_measured_and_shown_on_a_page(tmp_path: Path) -> None:
    small = ["--n", "3", "--validation-n", "2", "--infeasible-n", "1", "--chains-n", "1", "--steps", "2"]
    page = tmp_path / "quality.html"
    command = [Path(sys.executable).with_name("careedit"), "eval", "quality", *small, "--html", page, "--json"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"identity", "base", "best_single", "random", "rules", "oracle"} <= set(document["rows"])
    for name in ("unified", "learned_top1", "learned_top2"):
        assert (document["rows"][name] is None) == (name in document["missing"])
    assert page.read_text("utf-8").count("<article>") == 3
