"""Tests share processes: what starts Ray stays together, as two clusters starve each other, and nobody stops another's clock."""

import os
import re
from pathlib import Path

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_the_tests_of_a_file_stay_together(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith(f"@{request.path.name}"), "this pytest-xdist does not know this pytest's groups"


def test_no_test_stops_the_clock_of_the_whole_process() -> None:
    stopped = re.compile(r"""setattr\((?:[\w.]*\btime,|["']time\.)""")
    tests = Path(__file__).parents[2]
    assert [path.name for path in tests.rglob("*.py") if stopped.search(path.read_text("utf-8"))] == []
