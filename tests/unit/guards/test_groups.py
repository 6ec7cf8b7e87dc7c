"""Under pytest-xdist, what starts Ray stays together: two clusters at a time starve each other on a small machine."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_the_tests_of_a_file_stay_together(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith(f"@{request.path.name}"), "this pytest-xdist does not know this pytest's groups"
