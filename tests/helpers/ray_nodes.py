"""A Ray cluster of `ray start` processes on this machine, started with what a RayService tells KubeRay to start pods with.

What KubeRay adds to a pod of a cluster with `gcsFaultToleranceOptions` (ray-operator/controllers/ray/common/pod.go) is added here:
Redis' address, password and a storage namespace for the head, ten minutes of patience with a lost head for the workers. A
node is killed as a pod is: all of its processes at once, by their ids.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psutil

from servers import free_port

PATIENCE_S = 240.0
"""Seconds that a node may take to pass its pod's startup probe."""
MARK = "CAREEDIT_TEST_NODE"
"""Variable in the environment of all processes of a node, by which they are found."""
OBJECT_STORE_BYTES = 128 * 2**20
"""Size of a node's object store, for which a pod has its /dev/shm."""


@dataclass(eq=False)
class Node:
    """What would be a pod."""

    name: str
    folder: Path
    agent_port: int
    process: subprocess.Popen[bytes]

    @property
    def processes(self) -> list[psutil.Process]:
        """Everything that runs on it, replicas included."""
        return [one for one in psutil.process_iter() if _mark_of(one) == self.name]

    def runs(self, pid: int) -> bool:
        """Whether a process is one of its own."""
        return psutil.pid_exists(pid) and _mark_of(psutil.Process(pid)) == self.name

    def kill(self) -> None:
        """SIGKILL for all at once, until nothing is left."""
        while left := self.processes:
            for one in left:
                try:
                    one.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.poll()
            psutil.wait_procs(left, timeout=5)
        self.process.wait(30)

    def wait_until_up(self) -> None:
        """Wait for what the pod's startup probe asks."""
        end = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None, f"{self.name} ended: {(self.folder / 'log').read_text()[-3000:]}"
            assert time.monotonic() < end, f"{self.name} is not up: {(self.folder / 'log').read_text()[-3000:]}"
            try:
                if httpx2.get(f"http://127.0.0.1:{self.agent_port}/api/healthz", timeout=5).is_success:
                    return
            except httpx2.HTTPError:
                time.sleep(0.2)


@dataclass(eq=False)
class Nodes:
    """A RayService's cluster; `folder` is short, because sockets lie in it."""

    service: Mapping[str, Any]
    """The manifest."""
    folder: Path
    redis: str
    password: str
    environment: Mapping[str, str]
    """What replaces variables of the manifest's containers, or comes to them from a secret."""
    gcs_port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    namespace: str = field(default_factory=lambda: uuid4().hex)
    """Of the state in Redis; KubeRay takes the cluster's uid."""
    token: str = field(default_factory=lambda: uuid4().hex)
    """The token that KubeRay makes for a cluster whose `authOptions` ask for one."""
    head: Node | None = None
    workers: list[Node] = field(default_factory=list)

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.service["spec"]["rayClusterConfig"]
        return spec

    @property
    def auth(self) -> Mapping[str, str]:
        """What KubeRay adds to the environment of every pod."""
        assert self.spec["authOptions"] == {"mode": "token"}
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start(self) -> None:
        """The head, and of each group as many nodes as it may have pods."""
        self.start_head()
        for group in self.spec["workerGroupSpecs"]:
            for _ in range(group["maxReplicas"]):
                self.start_worker(group["groupName"])

    def start_head(self) -> Node:
        head = self.spec["headGroupSpec"]
        assert "gcsFaultToleranceOptions" in self.spec, "the overlay's head forgets everything"
        environment = {
            "RAY_REDIS_ADDRESS": self.redis,
            "REDIS_PASSWORD": self.password,
            "RAY_external_storage_namespace": self.namespace,
        }
        self.head = self._start(
            "head",
            {**head["rayStartParams"], "dashboard-host": "127.0.0.1", "redis-password": self.password},
            head["template"],
            environment,
            ["--head", f"--port={self.gcs_port}", f"--dashboard-port={self.dashboard_port}"],
        )
        return self.head

    def start_worker(self, name: str) -> Node:
        (group,) = [one for one in self.spec["workerGroupSpecs"] if one["groupName"] == name]
        own = {key: float(amount) for key, amount in group["resources"].items() if key not in ("CPU", "GPU")}
        resources = "{" + ",".join(f'"{key}":{amount:g}' for key, amount in own.items()) + "}"
        node = self._start(
            name,
            {**group["rayStartParams"], "num-cpus": group["resources"]["CPU"], "resources": resources},
            group["template"],
            {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"},
            [f"--address=127.0.0.1:{self.gcs_port}"],
        )
        self.workers.append(node)
        return node

    def stop(self) -> None:
        """End everything."""
        for node in [*self.workers, *([self.head] if self.head else [])]:
            node.kill()

    def _start(
        self,
        kind: str,
        parameters: Mapping[str, str],
        template: Mapping[str, Any],
        added: Mapping[str, str],
        arguments: list[str],
    ) -> Node:
        name = f"{kind}-{uuid4().hex[:8]}"
        folder = self.folder / name[-8:]
        folder.mkdir()
        (container,) = template["spec"]["containers"]
        told = {one["name"]: one["value"] for one in container["env"]}
        inherited = {key: os.environ[key] for key in ("PATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE") if key in os.environ}
        environment = {**inherited, **told, **self.environment, **added, **self.auth, "HOME": str(folder), MARK: name}
        agent_port = free_port()
        own = {  # many nodes share this machine's ports
            "metrics-export-port": str(free_port()),
            "dashboard-agent-listen-port": str(agent_port),
            "dashboard-agent-grpc-port": str(free_port()),
            "min-worker-port": "0",
            "max-worker-port": "0",
            "node-ip-address": "127.0.0.1",
            "object-store-memory": str(OBJECT_STORE_BYTES),
            "temp-dir": str(folder),
        }
        options = [f"--{key}={value}" for key, value in {**parameters, **own}.items()]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *arguments, *options]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        node = Node(name, folder, agent_port, process)
        node.wait_until_up()
        return node


def short_folder() -> Iterator[Path]:
    """A new folder with a short path, which goes when the generator ends."""
    folder = Path("/tmp") / f"ce-{uuid4().hex[:6]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _mark_of(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        mark: str | None = process.environ().get(MARK)
        return mark
    except psutil.Error:
        return None
