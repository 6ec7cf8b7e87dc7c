"""Webhooks that are still to be sent, in SQL: written with the end of their job, so that none is forgotten."""

from __future__ import annotations

from sqlalchemy import select, update

from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.models import record_of, webhooks
from careedit_deployments.state.records import WebhookRecord


class SqlWebhookTable:
    """`WebhookTable` in SQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def claim(self, *, lease_s: float) -> WebhookRecord | None:
        """See `WebhookTable`."""
        now = self._clock()
        due = (webhooks.c.status == "pending") & (webhooks.c.next_at <= now)
        oldest = select(webhooks.c.id).where(due).order_by(webhooks.c.next_at).limit(1)
        take = (
            update(webhooks)
            .where(webhooks.c.id == oldest.with_for_update(skip_locked=True).scalar_subquery(), due)
            .values(attempt=webhooks.c.attempt + 1, next_at=now + lease_s)
            .returning(webhooks)
        )
        async with self._database.write() as connection:
            row = (await connection.execute(take)).one_or_none()
        return None if row is None else record_of(WebhookRecord, row)

    async def settle(
        self, webhook: WebhookRecord, *, error: str | None = None, retry_in_s: float | None = None
    ) -> None:
        """See `WebhookTable`."""
        if error is None:
            values: dict[str, object] = {"status": "delivered", "error": None}
        elif retry_in_s is None:
            values = {"status": "given_up", "error": error}
        else:
            values = {"next_at": self._clock() + retry_in_s, "error": error}
        mine = (webhooks.c.id == webhook.id) & (webhooks.c.attempt == webhook.attempt)
        async with self._database.write() as connection:
            await connection.execute(update(webhooks).where(mine).values(**values))

    async def of(self, job_id: str) -> list[WebhookRecord]:
        """See `WebhookTable`."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(webhooks).where(webhooks.c.job == job_id).order_by(webhooks.c.id))
            return [record_of(WebhookRecord, row) for row in rows]
