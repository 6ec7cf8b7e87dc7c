"""A real server on a free port of this machine, in a thread, over one process' backend."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.backend import Backend
from careedit_deployments.http.app import create_app
from careedit_deployments.http.auth import make_key, make_tenant
from careedit_deployments.http.services import Services, assemble
from careedit_deployments.state.blobs import open_blobs
from careedit_deployments.state.store import open_store
from careedit_deployments.state.tenant_records import KeyRecord, TenantRecord
from careedit_deployments.telemetry.metrics import Metrics, Recording
from stores import place_database

Access = tuple[TenantRecord, KeyRecord]
"""A tenant with its key, for `serve`."""


def a_key(name: str, **limits: Any) -> tuple[str, Access]:
    """A key with every scope, and its records; the tenant has no other key."""
    tenant = make_tenant(name, **limits)
    key, record = make_key(name, tenant.id)
    return key, (tenant, record)


def events_of(response: httpx2.Response) -> list[tuple[str, Any]]:
    """(name, data) of each event of a whole stream."""
    found = []
    for block in response.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


@dataclass(eq=False)
class Served:
    """A server that runs."""

    url: str = ""
    """Its address, without a path."""
    recording: Recording = field(default_factory=Recording)
    """What its metrics recorded."""
    services: Services | None = None
    """What it stands on."""
    app: FastAPI | None = None
    """What it serves."""
    loop: asyncio.AbstractEventLoop | None = None
    """Where it runs."""

    def run(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine in the server's loop and wait for it."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(30)


@contextmanager
def serve(folder: Path, backend: Backend, *, keys: tuple[Access, ...] = (), **config: Any) -> Iterator[Served]:
    """Serve `backend` until the context ends; state lives in `folder`."""
    settings = ServeConfig(
        **{
            "arms": {"tiny": {"expert_set": "tiny"}},
            "state": {"database": f"sqlite+aiosqlite:///{folder}/state.db", "blobs": str(folder / "blobs")},
            **config,
        }
    )
    served, up, failure = Served(), threading.Event(), []
    if "sqlite" in settings.state.database:
        place_database(settings.state)

    async def main(server: list[uvicorn.Server]) -> None:
        served.loop = asyncio.get_running_loop()
        store = await open_store(settings.state)
        try:
            for tenant, key in keys:
                await store.tenants.add(tenant)
                await store.keys.add(key)
            metrics = Metrics(served.recording)
            services = assemble(settings, backend, store, open_blobs(settings.state), metrics)
            served.services = services
            served.app = create_app(services)
            listening = uvicorn.Config(served.app, host="127.0.0.1", port=0, log_config=None, lifespan="on", ws="none")
            server.append(uvicorn.Server(listening))
            serving = asyncio.create_task(server[0].serve())
            while not server[0].started and not serving.done():
                await asyncio.sleep(0.005)
            if not serving.done():
                port = server[0].servers[0].sockets[0].getsockname()[1]
                served.url = f"http://127.0.0.1:{port}"
                up.set()
            await serving
        finally:
            await store.close()

    server: list[uvicorn.Server] = []

    def run() -> None:
        try:
            asyncio.run(main(server))
        except BaseException as error:  # noqa: BLE001 - raised by whoever made the thread
            failure.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=run, name="served", daemon=True)
    thread.start()
    assert up.wait(60)
    if failure:
        raise failure[0]
    try:
        yield served
    finally:
        server[0].should_exit = True
        thread.join(120)
        assert not thread.is_alive(), "the server did not stop"
        if failure:
            raise failure[0]
