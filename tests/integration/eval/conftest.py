"""One small Ray cluster for the tests of evaluation: two workers have room, and a CPU stays free."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def ray_runner() -> Iterator:
    """Connected to the cluster that this process has already, else to one that ends with the module.

    Serve's tests start their own in the same process, and a process has but one.
    """
    import ray

    from careedit_eval.pipeline.ray_data import RayRunner

    if ray.is_initialized():
        yield RayRunner()
        return
    helpers, before = str(Path(__file__).parents[2] / "helpers"), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (helpers, before)))
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default workers yield to everything else that runs here
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield RayRunner()
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
