"""The overlay `local` as rendered, on a head and workers that `ray start` starts here; addresses are this machine's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import fsspec
import httpx2
import pytest
import yaml
from moto.server import ThreadedMotoServer
from PIL import Image
from sqlalchemy import make_url

from careedit import load_editor
from careedit.editor import Editor
from careedit.experts import load_expert_set
from careedit.records import EditRequest
from careedit_deployments.kubernetes.command import dev_secrets
from crowd import Answer, Crowd
from manifests import of_kind
from ray_nodes import Nodes, short_folder
from servers import free_port, running_postgres, running_redis

OVERLAY = "local"
PATIENCE_S = 420.0
"""Seconds that the platform may take to stand (again)."""

Config = dict[str, Any]


def committed(kind: str, name: str) -> dict[str, Any]:
    """An object of the overlay, as `kubectl` would send it."""
    (one,) = [one for one in of_kind(OVERLAY, kind) if one["metadata"]["name"] == name]
    return one


def at_home(config: Config, *, port: int, database: str) -> Config:
    """`config` (a `serveConfigV2`) at this machine's addresses; nothing else of it is changed."""
    (application,) = config["applications"]
    args = application["args"]
    here = make_url(database)
    told = make_url(args["state"]["database"]).set(host=here.host, port=here.port)
    state = {**args["state"], "database": told.render_as_string(hide_password=False)}
    return {
        **config,
        "http_options": {**config["http_options"], "host": "127.0.0.1", "port": port},
        "applications": [{**application, "args": {**args, "state": state}}],
    }


@dataclass(eq=False)
class Platform:
    """The served overlay."""

    nodes: Nodes
    url: str
    """Where the workers' proxies listen: all at one port, as behind the Service; the head's is elsewhere."""
    config: Config
    """What is deployed."""
    key: str = ""
    editors: dict[str, Editor] = field(default_factory=dict)
    """The same sets in this process, by hash."""
    made: dict[tuple[str, int, int | None], Image.Image] = field(default_factory=dict)

    def deploy(self, config: Config) -> None:
        """`serve deploy`."""
        self.config = config
        file = self.nodes.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config), "utf-8")
        program = Path(sys.executable).with_name("serve")
        done = subprocess.run(
            [program, "deploy", file, "--address", self.nodes.dashboard],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **self.nodes.auth},
        )
        assert done.returncode == 0, done.stderr

    def status(self) -> dict[str, Any]:
        """What Serve tells of the application; empty while there is nobody to ask."""
        try:
            answer = httpx2.get(
                f"{self.nodes.dashboard}/api/serve/applications/",
                headers={"Authorization": f"Bearer {self.nodes.token}"},
                timeout=30,
            )
        except httpx2.HTTPError:
            return {}
        applications = answer.json()["applications"] if answer.is_success else {}
        return dict(applications.get(self.config["applications"][0]["name"], {}))

    def stands(self) -> bool:
        """Whether all that was deployed last runs, on processes that live."""
        status = self.status()
        told = status.get("deployed_app_config") or {}
        deployments = status.get("deployments", {}).values()
        assert status.get("status") != "DEPLOY_FAILED", [one["message"] for one in deployments]
        return (
            status.get("status") == "RUNNING"
            and told.get("args") == self.config["applications"][0]["args"]
            and all(one["status"] == "HEALTHY" for one in deployments)
            and all(any(node.runs(pid) for node in self.nodes.workers) for pid in self.pids(status))
        )

    def pids(self, status: Mapping[str, Any], deployment: str | None = None) -> list[int]:
        """Processes of replicas that run."""
        deployments = status.get("deployments", {})
        chosen = deployments.values() if deployment is None else [deployments[deployment]]
        return [one["pid"] for own in chosen for one in own["replicas"] if one["state"] == "RUNNING"]

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something that happens in other processes."""
        end = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < end, f"{what}: not within {PATIENCE_S:g} s; {yaml.safe_dump(self.status())}"
            time.sleep(0.5)
        return found

    def crowd(self) -> Crowd:
        """Clients with the platform's key."""
        return Crowd(self.url, key=self.key, timeout=PATIENCE_S)

    def edit(self, request: EditRequest) -> Answer:
        """One edit over HTTP, tried until it is answered as it should be: what a client does whose server is away."""

        async def once() -> Answer | None:
            async with self.crowd() as crowd:
                try:
                    answer = await crowd.edit(request)
                except (httpx2.HTTPError, ValueError):
                    return None
                return answer if answer.status == 200 else None

        answer: Answer = self.wait(lambda: asyncio.run(once()), "an answer")
        return answer

    def know(self, expert_set: str) -> str:
        """Load a set in this process, too, and return its hash."""
        sha256 = load_expert_set(expert_set).sha256
        if sha256 not in self.editors:
            self.editors[sha256] = load_editor(expert_set, device="cpu", application="merged")
        return sha256

    def alone(self, request: EditRequest, sha256: str) -> Image.Image:
        """The same edit in this process."""
        assert request.seed is not None
        key = (sha256, request.seed, request.steps)
        if key not in self.made:
            self.made[key] = self.editors[sha256].edit(request).image
        return self.made[key]


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The overlay, deployed; tests leave it whole."""
    redis = committed("StatefulSet", "redis")["spec"]["template"]["spec"]["containers"][0]["args"]
    secrets = {one["metadata"]["name"]: one["stringData"] for one in yaml.safe_load_all(dev_secrets())}
    password, port = secrets["careedit-redis"]["password"], free_port()
    bucket = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    host, bucket_port = bucket.get_host_and_port()
    stores = {**secrets["careedit-stores"], "AWS_ENDPOINT_URL": f"http://{host}:{bucket_port}"}
    folders = short_folder()
    told = [{"$(PASSWORD)": password, "/data": "."}.get(one, one) for one in redis]
    with running_postgres() as postgres, running_redis(*told) as address:
        asyncio.run(_prepare(postgres, stores))
        service = committed("RayService", "careedit")
        config = at_home(yaml.safe_load(service["spec"]["serveConfigV2"]), port=free_port(), database=postgres)
        environment = {**stores, "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(port)}
        nodes = Nodes(service, next(folders), address, password, environment)
        platform = Platform(nodes, f"http://127.0.0.1:{port}", config)
        try:
            nodes.start()
            platform.deploy(config)
            platform.key = _add_key(nodes.folder / "config.yaml", config, stores)
            platform.know(config["applications"][0]["args"]["arms"]["main"]["expert_set"])
            yield platform
        finally:
            nodes.stop()
            next(folders, None)
            bucket.stop()


async def _prepare(postgres: str, stores: Mapping[str, str]) -> None:
    """The database and the bucket, as the overlay's stores come with them."""
    connection = await asyncpg.connect(postgres)
    await connection.execute("CREATE DATABASE careedit")
    await connection.close()
    options = {
        "key": stores["AWS_ACCESS_KEY_ID"],
        "secret": stores["AWS_SECRET_ACCESS_KEY"],
        "client_kwargs": {"endpoint_url": stores["AWS_ENDPOINT_URL"]},
    }
    await asyncio.to_thread(lambda: fsspec.filesystem("s3", **options).mkdir("careedit"))


def _add_key(file: Path, config: Config, stores: Mapping[str, str]) -> str:
    """The third of the documented commands: a key, by the configuration that lies in the pods."""
    file.write_text(yaml.safe_dump(config["applications"][0]["args"]), "utf-8")
    program = Path(sys.executable).with_name("careedit")
    done = subprocess.run(
        [program, "keys", "add", "me", "--config", file, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **stores},
    )
    assert done.returncode == 0, done.stderr
    return str(yaml.safe_load(done.stdout)["key"])
