"""A process that works on jobs until it is killed: `python worker_process.py DATABASE BLOBS SECONDS_PER_STEP`."""

from __future__ import annotations

import asyncio
import sys

from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.jobs.background import background
from careedit_deployments.state.blobs import open_blobs
from careedit_deployments.state.store import open_store
from careedit_deployments.telemetry.metrics import Metrics, no_metrics
from fake_backend import FakeBackend

LEASE_S = 2.0


def config_of(database: str, blobs: str) -> ServeConfig:
    """What the test and its processes share."""
    return ServeConfig(
        arms={"tiny": {"expert_set": "tiny"}},
        state={"database": database, "blobs": blobs},
        jobs={"workers": 2, "lease_s": LEASE_S},
    )


async def main(database: str, blobs: str, pause: str) -> None:
    """Work for ever."""
    config, painter = config_of(database, blobs), FakeBackend()
    painter.pause = float(pause)
    store = await open_store(config.state)
    metrics = Metrics(no_metrics)
    edits = EditService(config, painter, metrics, store.edits)
    async with background(config, edits, store, open_blobs(config.state), metrics, codecs=Codecs(), poll_s=0.1):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
