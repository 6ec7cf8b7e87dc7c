"""`careedit bench eval` as a user runs it: every key is there, and each says what it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(900)
def test_the_command_measures_everything(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [Path(sys.executable).with_name("careedit"), "bench", "eval", "--quick", "--json", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert json.loads(out.read_text()) == document
    assert set(document["edit_throughput_per_worker"]) == {"1", "2"}
    assert all(rate > 0 for rate in document["edit_throughput_per_worker"].values())
    for workers, one in document["details"]["editing"].items():
        per_worker = one["per_second"] / int(workers) / one["loop_per_second"]
        assert document["edit_throughput_per_worker"][workers] == pytest.approx(per_worker)
    assert document["metric_speedup"] == document["details"]["measuring"]["1"]["ratio"] > 0
    assert document["resume_seconds"] > 0 and document["details"]["growth"]["resumed"]["edited"] == 0
    assert 0.8 < document["memory_growth_ratio"] < 2
    assert set(document["goals"]) == {"edit_throughput_per_worker", "metric_speedup", "memory_growth_ratio"}
