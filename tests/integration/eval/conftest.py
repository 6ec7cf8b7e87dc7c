"""One small Ray cluster for all tests of evaluation: two workers have room, and a CPU stays free."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_runner() -> Iterator:
    """Connected to a cluster of this session's own, which ends with it."""
    import ray

    helpers = str(Path(__file__).parents[2] / "helpers")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (helpers, os.environ.get("PYTHONPATH"))))

    from careedit_eval.pipeline.ray_data import RayRunner

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield RayRunner()
    ray.shutdown()
