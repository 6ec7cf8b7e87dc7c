"""One Ray cluster for the whole layer: three raylets on this machine, started by the first test that needs them."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from careedit_deployments.cluster.lifecycle import SERVING

QUICK = {
    **SERVING,
    # Serve's own pace is seconds to tens of seconds; these are read when the processes start.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.2",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.2",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
    # Signs the webhooks of a test; replicas inherit the environment of the processes that start them.
    "CAREEDIT_TEST_WEBHOOK_KEY": "for the tests of webhooks only",
}

WORKER = {"num_cpus": 2, "resources": {"worker": 1}}
"""A node other than the head; replicas that request some "worker" run on one of these."""
WORKERS = 2
"""Number of worker nodes."""


@dataclass(frozen=True)
class ServeCluster:
    """A running Ray Serve."""

    url: str
    """Address of the cluster's HTTP proxy."""
    cluster: Any
    """Ray's own cluster for tests; its workers' nodes may be killed, its head may not."""

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
        from careedit_deployments.cluster.ray_backend import RayBackend

        settings = read_config(config)
        sets = {name: load_expert_set(arm.expert_set) for name, arm in settings.arms.items()}
        return RayBackend(
            plan_fleet(settings, sets), lambda name: serve.get_deployment_handle(name, app_name), app_name=app_name
        )

    def replicas(self, app_name: str, deployment: str) -> list[tuple[int, str]]:
        """Process and node of every replica of a deployment that answers."""
        from replica_process import process_and_node

        return self.inside(app_name, deployment, process_and_node)

    def inside(self, app_name: str, deployment: str, look: Callable[[Any], Any]) -> list[Any]:
        """The results of `look`, a function in tests/helpers, in every replica of a deployment that answers."""
        return self._inside(f"SERVE_REPLICA::{app_name}#{deployment}#", look)

    def proxies(self) -> list[int]:
        """Process of every HTTP proxy that answers."""
        from replica_process import process_and_node

        return [pid for pid, _ in self._inside("SERVE_PROXY_ACTOR", process_and_node)]

    def _inside(self, prefix: str, look: Callable[[Any], Any]) -> list[Any]:
        import ray

        found = []
        for one in ray.util.list_named_actors(all_namespaces=True):
            if one["name"].startswith(prefix):
                with contextlib.suppress(ray.exceptions.RayError, ValueError):
                    actor = ray.get_actor(one["name"], namespace=one["namespace"])
                    found.append(ray.get(actor.__ray_call__.remote(look), timeout=30))
        return found

    def lose(self, node_id: str) -> None:
        """Kill a worker's node and everything on it."""
        (node,) = (node for node in self.cluster.worker_nodes if node.node_id == node_id)
        self.cluster.remove_node(node, allow_graceful=False)

    def complete(self) -> None:
        """Replace each lost node; call it from the main thread."""
        while len(self.cluster.worker_nodes) < WORKERS:
            self.cluster.add_node(**WORKER)


@pytest.fixture(scope="session")
def serve_cluster(session_stack: contextlib.ExitStack) -> ServeCluster:
    """The cluster of all integration tests."""
    return session_stack.enter_context(_started())


@contextlib.contextmanager
def _started() -> Iterator[ServeCluster]:
    """Ray with a fixed number of CPUs, whatever the machine has, and Serve on a free port."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    helpers = str(Path(__file__).parent.parent / "helpers")
    before = dict(os.environ)
    os.environ |= QUICK | {"PYTHONPATH": os.pathsep.join((helpers, *filter(None, [os.environ.get("PYTHONPATH")])))}
    os.environ.pop("RAY_ADDRESS", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        for patience in (True, True, True, False):
            try:
                while len(cluster.worker_nodes) < WORKERS:
                    cluster.add_node(**WORKER)
                break
            except Exception:  # Ray's bare one, for a raylet that took more than half a minute
                if not patience:
                    raise
        ray.init(address=cluster.address, log_to_driver=False)
        for patience in (True, True, False):  # Serve waits a minute for its proxy, which a busy machine may not keep
            try:
                serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
                break
            except TimeoutError:
                if not patience:
                    raise
    try:
        yield ServeCluster(f"http://127.0.0.1:{port}", cluster)
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ |= before
