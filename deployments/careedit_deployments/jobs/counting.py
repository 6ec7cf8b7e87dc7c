"""What the metrics hear of jobs: each step of one's life from the process that made it, and how many wait."""

from __future__ import annotations

import asyncio
import logging

from careedit.errors import CareEditError
from careedit_deployments.state.queue import JobTable
from careedit_deployments.state.records import JobRecord
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks at how many jobs wait."""


def count_job(metrics: Metrics, job: JobRecord) -> None:
    """Count what a `JobTable` tells its watchers."""
    seconds = (job.finished or job.created) - job.created
    if job.status == "queued":
        metrics.job("queued")
    elif job.status == "running":
        metrics.job("begun" if job.attempt == 1 else "retaken")
    elif job.status == "completed":
        metrics.job_ended("finished", seconds)
    else:
        metrics.job_ended(job.status, seconds)


async def count_waiting(jobs: JobTable, metrics: Metrics) -> None:
    """Look how many jobs wait, until cancelled."""
    while True:
        try:
            metrics.jobs_waiting(await jobs.waiting())
        except CareEditError as error:  # the gauge stays as it was
            logger.warning("Nobody knows how many jobs wait: %s", error)
        await asyncio.sleep(LOOK_S)
