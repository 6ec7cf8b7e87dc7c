"""What tenants store, counted per scope of the blob store, and their quotas.

Bytes are counted before they are written, in a transaction of their tenant alone: two requests at once cannot both take
the last room. A scope's row is deleted with its pictures. A job also reserves room for its results when it is accepted, so
that an accepted job does not fail at the quota.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Select, case, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from careedit_deployments.errors import QuotaError
from careedit_deployments.state.database import Database
from careedit_deployments.state.tables import storage, tenants


class StorageTable:
    """Bytes of stored pictures. `quota` is that of a tenant without one of its own."""

    def __init__(self, database: Database, quota: int) -> None:
        self._database, self._quota = database, quota

    async def used(self, owner: str) -> int:
        """Bytes that a tenant has stored or reserved."""
        async with self._database.read() as connection:
            return await _used(connection, owner)

    async def check_room(self, owner: str, size: int) -> None:
        """Raise `QuotaError` if a tenant has no room for so many more bytes now. Reserves nothing."""
        async with self._database.read() as connection:
            await self._check(connection, owner, size)

    async def add(
        self,
        scope: str,
        owner: str,
        size: int = 0,
        *,
        user: str | None = None,
        reserve: int = 0,
        accepted: bool = False,
    ) -> None:
        """Count `size` bytes that are about to be written, and reserve room for later ones. Raises `QuotaError`.

        `accepted`: the bytes belong to work that was accepted before. They use the room that it reserved, and are not refused.
        """
        left = storage.c.reserved - size
        reserved = case((left > 0, left), else_=0) if accepted else storage.c.reserved + reserve
        new = self._database.insert(storage).values(scope=scope, owner=owner, bytes=size, user=user, reserved=reserve)
        count = new.on_conflict_do_update(
            index_elements=["scope"], set_={"bytes": storage.c.bytes + size, "reserved": reserved}
        )
        async with self._database.write() as connection:
            if not accepted:
                await lock_owner(self._database, connection, owner)
                await self._check(connection, owner, size + reserve)
            await connection.execute(count)

    async def take_back(self, scope: str, size: int) -> None:
        """Do not count bytes that could not be written."""
        change = update(storage).where(storage.c.scope == scope).values(bytes=storage.c.bytes - size)
        await self._database.change(change)

    async def delete(self, scope: str) -> None:
        """Count nothing of a scope, whose pictures are deleted."""
        await self._database.change(delete(storage).where(storage.c.scope == scope))

    async def scopes(self, kind: str) -> list[str]:
        """The counted scopes of a kind ("jobs", "sessions", "files")."""
        return await self._database.column(select(storage.c.scope).where(storage.c.scope.startswith(f"{kind}/")))

    async def _check(self, connection: AsyncConnection, owner: str, size: int) -> None:
        quota = await own_limit(connection, owner, tenants.c.stored_bytes, self._quota)
        used = await _used(connection, owner)
        if used + size > quota:
            raise QuotaError(
                f"Your stored images have {used:,} bytes and this request needs {size:,} more; you may store {quota:,}, so "
                "delete jobs and sessions that you no longer need, or wait until they expire."
            )


async def own_limit(connection: AsyncConnection, owner: str, column: Any, default: int) -> int:
    """A limit of a tenant: its own, or the default."""
    own = (await connection.execute(select(column).where(tenants.c.id == owner))).scalar_one_or_none()
    return default if own is None else int(own)


async def free_reserved(connection: AsyncConnection, scope: str) -> None:
    """Free what a job has reserved and not used; it has ended."""
    await connection.execute(update(storage).where(storage.c.scope == scope).values(reserved=0))


async def lock_owner(database: Database, connection: AsyncConnection, owner: str) -> None:
    """Wait until no other transaction checks a quota of this tenant."""
    digest = hashlib.sha256(f"quota {owner}".encode()).digest()
    await database.take_turns(
        connection, int.from_bytes(digest[:8], "big", signed=True)
    )  # PostgreSQL's locks have 64 bits


async def _used(connection: AsyncConnection, owner: str) -> int:
    total = func.coalesce(func.sum(storage.c.bytes + storage.c.reserved), literal(0))
    query: Select[Any] = select(total).where(storage.c.owner == owner)
    return int((await connection.execute(query)).scalar_one())
