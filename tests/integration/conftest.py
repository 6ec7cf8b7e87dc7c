"""One Ray cluster for the whole layer: real processes on this machine, started by the first test that asks for them."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

QUICK = {
    # Serve's own pace is seconds to tens of seconds; these are read when the processes start.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.2",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.2",
    # A busy machine is slow to start them.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_worker_niceness": "0",  # by default workers yield to everything else that runs here
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class ServeCluster:
    """A running Ray Serve."""

    url: str
    """Address of its HTTP proxy."""

    def run(self, config: dict[str, Any], *, route_prefix: str = "/") -> str:
        """Deploy a `ServeConfig`, given as its fields, and wait until it runs; returns the application's name."""
        from ray import serve

        from careedit_deployments.app import build_app, read_config

        name = read_config(config).name
        serve.run(build_app(config), name=name, route_prefix=route_prefix)
        return name

    def backend(self, app_name: str, config: dict[str, Any]) -> Any:
        """A `RayBackend` in this process on a deployed application."""
        from ray import serve

        from careedit.experts import load_expert_set
        from careedit_deployments.app import plan_fleet, read_config
        from careedit_deployments.ray_backend import RayBackend

        settings = read_config(config)
        sets = {name: load_expert_set(arm.expert_set) for name, arm in settings.arms.items()}
        return RayBackend(
            plan_fleet(settings, sets), lambda name: serve.get_deployment_handle(name, app_name), app_name=app_name
        )


@pytest.fixture(scope="session")
def serve_cluster() -> Iterator[ServeCluster]:
    """Ray with a fixed number of CPUs, whatever the machine has, and Serve on a free port."""
    import ray
    from ray import serve

    helpers = str(Path(__file__).parent.parent / "helpers")
    before = dict(os.environ)
    os.environ |= QUICK | {"PYTHONPATH": os.pathsep.join((helpers, *filter(None, [os.environ.get("PYTHONPATH")])))}
    os.environ.pop("RAY_ADDRESS", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        for patience in (True, True, False):  # Serve waits a minute for its proxy, which a busy machine may not keep
            try:
                serve.start(http_options={"host": "127.0.0.1", "port": port})
                break
            except TimeoutError:
                if not patience:
                    raise
    try:
        yield ServeCluster(f"http://127.0.0.1:{port}")
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        os.environ.clear()
        os.environ |= before
