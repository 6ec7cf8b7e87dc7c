"""Tenants, what their edits have cost today, and their API keys. A key is found by its hash."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, case, or_, select, update

from careedit.record import Record
from careedit_deployments.errors import BudgetError, NotFoundError
from careedit_deployments.state.database import Database
from careedit_deployments.state.logs import Clock
from careedit_deployments.state.tables import AnyRecord, keys, tenants, usage, values_of
from careedit_deployments.state.tenant_policy import TenantPolicy, policy_for
from careedit_deployments.state.tenant_records import KeyRecord, TenantRecord

DAY_S = 24 * 3600
"""Seconds of a day."""


class KeyOfTenant(Record):
    """A key together with its tenant, as one query finds them."""

    key: KeyRecord
    """The key, without the key itself."""
    tenant: TenantRecord
    """The tenant that the key belongs to."""


class Tenants:
    """Tenants, and the limits that all keys of a tenant share."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, tenant: TenantRecord) -> None:
        """Store a tenant."""
        await self._database.add(tenants, tenant)

    async def get(self, tenant_id: str) -> TenantRecord:
        """One tenant. Raises `NotFoundError`."""
        tenant = await self._database.row(TenantRecord, select(tenants).where(tenants.c.id == tenant_id))
        if tenant is None:
            raise _unknown(tenant_id)
        return tenant

    async def all(self) -> list[TenantRecord]:
        """Every tenant, oldest first."""
        return await self._database.rows(TenantRecord, select(tenants).order_by(tenants.c.created, tenants.c.id))

    async def change(self, tenant_id: str, **fields: Any) -> None:
        """Change fields of a tenant's `TenantRecord`, given as JSON values. Raises `NotFoundError`."""
        if not await self._database.change(update(tenants).where(tenants.c.id == tenant_id).values(**fields)):
            raise _unknown(tenant_id)

    async def policy(self, owner: str) -> TenantPolicy:
        """The policy of an owner, as in `policy_for`."""
        kept = await self._database.column(select(tenants.c.policy).where(tenants.c.id == owner))
        return policy_for(owner, TenantPolicy(**kept[0]) if kept and kept[0] is not None else None)

    async def spend(self, owner: str, cost: int, *, limit: int) -> float:
        """Count the cost of an edit that is accepted, and return the time for `give_back`. Raises `BudgetError` above `limit`.

        The day is that of UTC. The unit is that of `EditCall.cost`.
        """
        now = self._clock()
        today = int(now // DAY_S)
        spent = case((usage.c.day == today, usage.c.evaluations), else_=0)
        new = self._database.insert(usage).values(owner=owner, day=today, evaluations=cost)
        count = new.on_conflict_do_update(
            index_elements=["owner"], set_={"day": today, "evaluations": spent + cost}, where=spent + cost <= limit
        )
        if cost > limit or not await self._database.change(count):
            used = await self._database.column(select(spent).where(usage.c.owner == owner))
            reset = (today + 1) * DAY_S
            raise BudgetError(
                f"Your edits of today have taken {sum(used):,} evaluations and this one needs {cost:,}; your tenant may use "
                f"{limit:,} per day, and the next day begins at {datetime.fromtimestamp(reset, UTC):%Y-%m-%d %H:%M} UTC.",
                retry_after=reset - now,
            )
        return now

    async def give_back(self, owner: str, cost: int, spent_at: float) -> None:
        """Do not count an edit that the server could not make, if its day has not ended."""
        its = (usage.c.owner == owner) & (usage.c.day == int(spent_at // DAY_S))
        await self._database.change(update(usage).where(its).values(evaluations=usage.c.evaluations - cost))


class Keys:
    """API keys. A key that was revoked or has expired is not valid."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def add(self, key: KeyRecord) -> None:
        """Store a key of an existing tenant."""
        await self._database.add(keys, key)

    async def find(self, sha256: str) -> KeyOfTenant | None:
        """The valid key with this hash, and its tenant; None if no such key exists."""
        query = _with_tenants().where(keys.c.sha256 == sha256, self._valid())
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _pair(row)

    async def all(self) -> list[KeyOfTenant]:
        """Every key with its tenant, also those that are not valid, oldest first."""
        async with self._database.read() as connection:
            return [_pair(row) for row in await connection.execute(_with_tenants().order_by(keys.c.created, keys.c.id))]

    async def invalid(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the given ids that do not belong to a valid key."""
        query = select(keys.c.id).where(keys.c.id.in_(list(ids)), self._valid())
        return frozenset(ids) - frozenset(await self._database.column(query))

    async def hashes(self) -> frozenset[str]:
        """The hashes of all valid keys."""
        return frozenset(await self._database.column(select(keys.c.sha256).where(self._valid())))

    async def touch(self, ids: Collection[str]) -> None:
        """Store that these keys are used now."""
        await self._database.change(update(keys).where(keys.c.id.in_(list(ids))).values(used=self._clock()))

    async def rotate(self, key_id: str, new: KeyRecord, *, overlap_s: float) -> bool:
        """Store the key that replaces a valid one, which expires after `overlap_s` seconds if not before.

        Returns False if no valid key has this id.
        """
        end = self._clock() + overlap_s
        mine = (keys.c.id == key_id) & self._valid()
        async with self._database.write() as connection:
            row = (await connection.execute(select(keys.c.expires).where(mine))).one_or_none()
            if row is None:
                return False
            expires = end if row.expires is None else min(end, row.expires)
            await connection.execute(update(keys).where(mine).values(expires=expires))
            await connection.execute(self._database.insert(keys).values(**values_of(new)))
        return True

    async def revoke(self, key_id: str) -> bool:
        """Refuse a key from now on. Returns False if no key has this id or it is revoked already."""
        good = (keys.c.id == key_id) & keys.c.revoked.is_(None)
        return await self._database.change(update(keys).where(good).values(revoked=self._clock())) > 0

    def _valid(self) -> ColumnElement[bool]:
        return keys.c.revoked.is_(None) & or_(keys.c.expires.is_(None), keys.c.expires > self._clock())


def _with_tenants() -> Any:
    return select(keys, tenants).join_from(keys, tenants, keys.c.tenant == tenants.c.id)


def _pair(row: Row[Any]) -> KeyOfTenant:
    def part(kind: type[AnyRecord], table: Table) -> AnyRecord:
        return kind(**{column.name: row._mapping[column] for column in table.c})

    return KeyOfTenant(key=part(KeyRecord, keys), tenant=part(TenantRecord, tenants))


def _unknown(tenant_id: str) -> NotFoundError:
    return NotFoundError(f"The tenant {tenant_id!r} does not exist; `careedit tenants list` shows the ids.")
