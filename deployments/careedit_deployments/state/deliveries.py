"""Messages about ended jobs, claimed by lease. They are written in the transaction that ends a job, so none is lost."""

from __future__ import annotations

from sqlalchemy import select, update

from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.records import WebhookRecord
from careedit_deployments.state.tables import record_of, webhooks


class WebhookTable:
    """Webhooks, claimed by lease. Each one is written in the transaction that ends its job, so none is lost."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def claim(self, *, lease_s: float) -> WebhookRecord | None:
        """Claim a webhook that is due, for `lease_s` seconds; None if no webhook is due. `attempt` counts this attempt."""
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
        """Store the result of an attempt: without `error` delivered, with `error` but no `retry_in_s` given up."""
        if error is None:
            values: dict[str, object] = {"status": "delivered", "error": None}
        elif retry_in_s is None:
            values = {"status": "given_up", "error": error}
        else:
            values = {"next_at": self._clock() + retry_in_s, "error": error}
        mine = (webhooks.c.id == webhook.id) & (webhooks.c.attempt == webhook.attempt)
        await self._database.change(update(webhooks).where(mine).values(**values))

    async def of(self, job_id: str) -> list[WebhookRecord]:
        """Webhooks of a job, oldest first."""
        query = select(webhooks).where(webhooks.c.job == job_id).order_by(webhooks.c.id)
        return await self._database.rows(WebhookRecord, query)
