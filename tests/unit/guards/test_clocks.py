"""The time of day is read in few places: durations are monotonic, and stored times come from `unix_time`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

ALLOWED = {
    "deployments/careedit_deployments/state/clock.py": "the clock itself",
    "deployments/careedit_deployments/bench/startup.py": "the age of a process, whose start the system states in that time",
    "platform/careedit/scoring/openai_http.py": "the date in a Retry-After header",
    "platform/careedit/provenance/certificates.py": "whether a certificate is valid, which readers compare with their own clocks",
    "eval/careedit_eval/runs.py": "when a run finished, for people",
    "eval/careedit_eval/judges/check.py": "when a check of a judge finished, for people",
    "eval/careedit_eval/cli/work.py": "the name of a run's folder",
    "eval/careedit_eval/voting/ballots.py": "when a pair was shown and voted on, for people, and to give raters different pairs",
    "eval/careedit_eval/pipeline/store.py": "the order of the files of one run; rows in several files are equal",
    "eval/careedit_eval/tracking/log.py": "MLflow's timestamps",
}
"""Files that may read the time of day, and what for. Add a file only if a wrong clock can lose nothing."""
READS = re.compile(r"\btime\.time(?:_ns)?\b(?!`)|\bfrom time import .*\btime\b|datetime\.(?:now|today)\(|\butcnow\b")


@pytest.mark.parametrize("package", ["platform", "deployments", "eval"])
def test_only_these_files_read_the_time_of_day(package: str) -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*.py")
        if READS.search(path.read_text("utf-8"))
    }
    assert readers == {path for path in ALLOWED if path.startswith(package)}
