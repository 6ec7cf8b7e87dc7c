"""Messages about ended jobs, claimed by lease, and the endpoints that tenants register for them.

Messages are written in the transaction that ends a job, so none is lost.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from careedit_deployments.errors import ConflictError, NotFoundError
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import JobRecord, WebhookRecord, new_id
from careedit_deployments.state.tables import endpoints, record_of, values_of, webhooks
from careedit_deployments.state.tenant_records import EndpointRecord


def payload_of(job: JobRecord) -> str:
    """Body of the message that reports the end of a job, in the shape that Standard Webhooks recommends."""
    ended = datetime.fromtimestamp(job.finished or job.created, UTC).isoformat().replace("+00:00", "Z")
    data = {
        "id": job.id,
        "object": "job",
        "tenant": job.owner,
        "status": job.status,
        "images": len(job.images),
        "error": job.error,
    }
    return json.dumps({"type": f"job.{job.status}", "timestamp": ended, "data": data}, separators=(",", ":"))


async def write_messages(connection: AsyncConnection, job: JobRecord, now: float) -> None:
    """Write the messages about an ended job: to the endpoints of its owner, and to its own address unless it is one of them."""
    query = select(endpoints.c.url, endpoints.c.id).where(endpoints.c.owner == job.owner).order_by(endpoints.c.id)
    goals = {} if job.webhook is None else {job.webhook: None}
    goals |= {url: endpoint for url, endpoint in await connection.execute(query)}
    for url, endpoint in goals.items():
        message = WebhookRecord(
            id=new_id("msg"),
            job=job.id,
            owner=job.owner,
            endpoint=endpoint,
            url=url,
            payload=payload_of(job),
            next_at=now,
            created=now,
        )
        await connection.execute(insert(webhooks).values(**values_of(message)))


class EndpointTable:
    """The endpoints that tenants register, each with its own secret."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, endpoint: EndpointRecord, *, limit: int) -> None:
        """Store an endpoint. Raises `ConflictError` if its owner has `limit` endpoints, or one with this URL."""
        count = select(func.count()).where(endpoints.c.owner == endpoint.owner)
        try:
            async with self._database.write() as connection:
                if (await connection.execute(count)).scalar_one() >= limit:
                    raise ConflictError(
                        f"You have {limit} webhook endpoints, the limit of this server; delete one first."
                    )
                await connection.execute(insert(endpoints).values(**values_of(endpoint)))
        except IntegrityError:
            raise ConflictError(
                "This address is registered already; rotate the secret of its endpoint instead."
            ) from None

    async def all(self, owner: str) -> list[EndpointRecord]:
        """The endpoints of an owner, oldest first."""
        query = select(endpoints).where(endpoints.c.owner == owner).order_by(endpoints.c.id)
        return await self._database.rows(EndpointRecord, query)

    async def rotate(self, endpoint_id: str, owner: str, secret: str, *, overlap_s: float) -> EndpointRecord:
        """Give an endpoint a new secret; the old one signs as well for `overlap_s` seconds. Raises `NotFoundError`."""
        its = (endpoints.c.id == endpoint_id) & (endpoints.c.owner == owner)
        change = update(endpoints).where(its)
        values = {"secret": secret, "old_secret": endpoints.c.secret, "old_until": self._clock() + overlap_s}
        async with self._database.write() as connection:
            row = (await connection.execute(change.values(**values).returning(endpoints))).one_or_none()
        if row is None:
            raise _unknown(endpoint_id)
        return record_of(EndpointRecord, row)

    async def delete(self, endpoint_id: str, owner: str) -> None:
        """Delete an endpoint; messages to it that are not sent yet are given up. Raises `NotFoundError`."""
        its = (endpoints.c.id == endpoint_id) & (endpoints.c.owner == owner)
        if not await self._database.change(delete(endpoints).where(its)):
            raise _unknown(endpoint_id)


class WebhookTable:
    """Messages, claimed by lease."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def claim(self, *, lease_s: float, without: Collection[str] = ()) -> WebhookRecord | None:
        """Claim a message that is due, for `lease_s` seconds; None if no message is due. `attempt` counts this attempt.

        Messages of the owners in `without` wait.
        """
        now = self._clock()
        due = (webhooks.c.status == "pending") & (webhooks.c.next_at <= now)
        if without:
            due &= webhooks.c.owner.not_in(list(without))
        oldest = select(webhooks.c.id).where(due).order_by(webhooks.c.next_at).limit(1)
        take = (
            update(webhooks)
            .where(webhooks.c.id == oldest.with_for_update(skip_locked=True).scalar_subquery(), due)
            .values(attempt=webhooks.c.attempt + 1, attempted=now, next_at=now + lease_s)
            .returning(webhooks)
        )
        async with self._database.write() as connection:
            row = (await connection.execute(take)).one_or_none()
        return None if row is None else record_of(WebhookRecord, row)

    async def secrets(self, endpoint_id: str) -> tuple[str, ...]:
        """The secrets that sign messages to an endpoint now, the newest first; empty if the endpoint was deleted."""
        endpoint = await self._database.row(EndpointRecord, select(endpoints).where(endpoints.c.id == endpoint_id))
        if endpoint is None:
            return ()
        old = endpoint.old_secret if endpoint.old_until > self._clock() else None
        return (endpoint.secret,) if old is None else (endpoint.secret, old)

    async def settle(
        self, webhook: WebhookRecord, *, error: str | None = None, retry_in_s: float | None = None
    ) -> None:
        """Store the result of an attempt: without `error` delivered, with `error` but no `retry_in_s` given up."""
        if error is None:
            values: dict[str, object] = {"status": "delivered", "error": None}
        elif retry_in_s is None:
            values = {"status": "given_up", "error": error}
        else:
            values = {"next_at": self._clock() + retry_in_s, "error": error}
        mine = (webhooks.c.id == webhook.id) & (webhooks.c.attempt == webhook.attempt)
        await self._database.change(update(webhooks).where(mine).values(**values))

    async def resend(self, job_id: str) -> int:
        """Make the messages of a job due again that are not pending; returns their number."""
        again = {"status": "pending", "next_at": self._clock(), "resent_after": webhooks.c.attempt}
        ended = (webhooks.c.job == job_id) & (webhooks.c.status != "pending")
        return await self._database.change(update(webhooks).where(ended).values(**again))

    async def of(self, job_id: str) -> list[WebhookRecord]:
        """Messages of a job, oldest first."""
        query = select(webhooks).where(webhooks.c.job == job_id).order_by(webhooks.c.id)
        return await self._database.rows(WebhookRecord, query)


def _unknown(endpoint_id: str) -> NotFoundError:
    return NotFoundError(f"The webhook endpoint {endpoint_id!r} does not exist; GET /v1/webhooks lists yours.")
