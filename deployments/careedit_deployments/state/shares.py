"""Whose job comes next: owners share the workers by start-time fair queueing.

Each owner has a virtual time: the evaluations that its jobs have taken. The job of the owner with the smallest virtual time
begins, the oldest one first, and its cost is added at that moment, so work in progress counts as well. An owner that was idle
continues at the present virtual time, that of the latest beginning, and gains nothing by waiting. So among owners with
queued jobs each gets an equal share of evaluations, and a new owner's first job waits for one free worker only. No clock is
involved.

Source: Goyal, Vin and Cheng, Start-time Fair Queuing, SIGCOMM 1996. With several workers, shares are equal up to one job per
worker.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Float, Select, case, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from careedit_deployments.state.database import Database
from careedit_deployments.state.tables import jobs, shares

TURN = 0x636C61696D
"""Number of the lock under which PostgreSQL's transactions claim jobs one after the other ("claim")."""


def _present() -> ColumnElement[float]:
    """The present virtual time."""
    return select(func.coalesce(func.max(shares.c.start), 0.0)).scalar_subquery()


def _begins(served: ColumnElement[float]) -> ColumnElement[float]:
    """The virtual time at which the next job of an owner begins that was served up to `served`."""
    present = _present()
    return case((served > present, served), else_=present)


_of_owner = shares.c.owner == jobs.c.owner
_begun = jobs.c.started.is_not(None)


def next_job(due: ColumnElement[bool]) -> Select[Any]:
    """The query for id and `started` of the job that comes next. A job that has begun comes first: it was counted already."""
    tag = _begins(func.coalesce(shares.c.served, 0.0))
    query = select(jobs.c.id, jobs.c.started).outerjoin(shares, _of_owner).where(due)
    return query.order_by(_begun.desc(), tag, jobs.c.created, jobs.c.id).limit(1)


async def count_begin(database: Database, connection: AsyncConnection, owner: str, cost: float) -> None:
    """Add the cost of a job that begins to its owner."""
    begins = _begins(shares.c.served)
    new = database.insert(shares).values(owner=owner, start=_present(), served=_present() + cost)
    await connection.execute(
        new.on_conflict_do_update(index_elements=["owner"], set_={"start": begins, "served": begins + cost})
    )


def jobs_ahead(job_id: str) -> Select[Any]:
    """The query for the number of queued jobs that come before a queued job, if no more are queued."""
    earlier = func.sum(case((_begun, 0.0), else_=jobs.c.cost)).over(
        partition_by=jobs.c.owner, order_by=(jobs.c.created, jobs.c.id), rows=(None, -1)
    )
    tag = _begins(func.coalesce(shares.c.served, 0.0)) + func.coalesce(earlier, 0.0, type_=Float)
    columns = (case((_begun, 0), else_=1).label("fresh"), tag.label("tag"), jobs.c.created, jobs.c.id)
    line = select(*columns).outerjoin(shares, _of_owner).where(jobs.c.status == "queued").subquery()
    mine = line.alias()
    before = tuple_(*line.c) < tuple_(*mine.c)
    return select(func.count()).select_from(line.join(mine, mine.c.id == job_id)).where(before)
