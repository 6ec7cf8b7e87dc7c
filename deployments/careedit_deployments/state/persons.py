"""What is stored of one end user of a tenant, or of all of them: found by owner and user, and deleted where no other table does it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, delete, or_, select, tuple_

from careedit.record import Record
from careedit_deployments.state.database import Database, portions
from careedit_deployments.state.tables import (
    AnyRecord,
    assignments,
    batch_lines,
    batches,
    edits,
    feedback,
    jobs,
    record_of,
    sessions,
    storage,
)
from careedit_deployments.state.tables import files as files_

IDS_AT_ONCE = 500
"""Ids in one query; databases limit the number of parameters."""


class PersonData(Record):
    """Ids of what is stored of a person, or of a whole tenant."""

    jobs: tuple[str, ...]
    """Ids of the jobs that were made for the person."""
    sessions: tuple[str, ...]
    """Ids of the sessions of the person, and of those in which the person made a turn."""
    batches: tuple[str, ...]
    """Ids of the batches with a job of the person, or whose input names the person."""
    uploads: tuple[str, ...]
    """Ids of the inputs of batches that name the person."""
    files: tuple[str, ...]
    """Scopes of the results that have an address."""
    edits: tuple[str, ...]
    """Ids of the edits in the log, copies by shadow arms included."""
    feedback: tuple[str, ...]
    """Ids of the feedback about these edits."""
    assignments: tuple[tuple[str, str], ...]
    """Hash of the user, and salt, of each assignment to an arm."""


class PersonTable:
    """Finds and deletes a person's rows in all tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, owner: str, names: Collection[str] | None) -> PersonData:
        """What a tenant stores of the user with these stored names; None: of all users, and of the tenant itself."""

        def mine(table: Table, user: Any) -> ColumnElement[bool]:
            owned = table.c.owner == owner
            return owned if names is None else and_(owned, user.in_(list(names)))

        job_user = jobs.c.order["user"].as_string()
        async with self._database.read() as connection:

            async def rows(*columns: Any, where: ColumnElement[bool]) -> list[Any]:
                return list(await connection.execute(select(*columns).where(where)))

            own = await rows(edits.c.id, edits.c.user, edits.c.request_id, where=mine(edits, edits.c.user))
            made = {row.id for row in own}
            for some in portions(made, IDS_AT_ONCE):
                made |= {row.id for row in await rows(edits.c.id, where=edits.c.shadow_of.in_(some))}
            its_jobs = await rows(jobs.c.id, job_user.label("user"), where=mine(jobs, job_user))
            its_sessions = await rows(sessions.c.id, sessions.c.user, where=mine(sessions, sessions.c.user))
            session_ids = {row.id for row in its_sessions}
            turned = {row.request_id.partition("/")[0] for row in own} - session_ids
            for some in portions(turned, IDS_AT_ONCE):
                its = and_(sessions.c.owner == owner, sessions.c.id.in_(some))
                session_ids |= {row.id for row in await rows(sessions.c.id, where=its)}
            files = and_(storage.c.scope.startswith("files/"), mine(storage, storage.c.user))
            opinions = await rows(feedback.c.id, feedback.c.edits, where=feedback.c.owner == owner)
            users = set(names or ()) or {owner, *(row.user for row in (*own, *its_jobs, *its_sessions) if row.user)}
            salts = list((await connection.execute(select(assignments.c.salt).distinct())).scalars())
            hashes = [(hashlib.sha256(f"{len(s)}:{s}{user}".encode()).hexdigest(), s) for s in salts for user in users]
            assigned = set[tuple[str, str]]()
            for pairs in portions(hashes, IDS_AT_ONCE):
                pair = tuple_(assignments.c.user_sha256, assignments.c.salt).in_(pairs)
                found = await rows(assignments.c.user_sha256, assignments.c.salt, where=pair)
                assigned |= {(row.user_sha256, row.salt) for row in found}
            if names is None:  # also of users of whom nothing else is left
                found = await rows(assignments.c.user_sha256, assignments.c.salt, where=assignments.c.owner == owner)
                assigned |= {(row.user_sha256, row.salt) for row in found}
            uploads = await rows(files_.c.id, files_.c.users, where=files_.c.owner == owner)
            upload_ids = {row.id for row in uploads if names is None or not set(names).isdisjoint(row.users)}
            its_batches = await rows(batches.c.id, batches.c.input_file, where=batches.c.owner == owner)
            batch_ids = {row.id for row in its_batches if names is None or row.input_file in upload_ids}
            for some in portions({row.id for row in its_jobs}, IDS_AT_ONCE):
                batch_ids |= {row.batch for row in await rows(batch_lines.c.batch, where=batch_lines.c.job.in_(some))}
            return PersonData(
                batches=tuple(sorted(batch_ids)),
                uploads=tuple(sorted(upload_ids)),
                jobs=tuple(sorted(row.id for row in its_jobs)),
                sessions=tuple(sorted(session_ids)),
                files=tuple(sorted(row.scope for row in await rows(storage.c.scope, where=files))),
                edits=tuple(sorted(made)),
                feedback=tuple(sorted(row.id for row in opinions if names is None or not made.isdisjoint(row.edits))),
                assignments=tuple(sorted(assigned)),
            )

    async def rows(self, kind: type[AnyRecord], column: Column[Any], ids: Collection[str]) -> list[AnyRecord]:
        """The records of a table in whose `column` one of the ids is, in the order of their primary keys."""
        found: list[AnyRecord] = []
        async with self._database.read() as connection:
            for some in portions(ids, IDS_AT_ONCE):
                query = select(column.table).where(column.in_(some)).order_by(*column.table.primary_key)
                found += [record_of(kind, row) for row in await connection.execute(query)]
        return found

    async def delete(self, data: PersonData) -> None:
        """Delete the edits, feedback and assignments of `data`, in one transaction. Jobs and sessions have pictures as well."""
        async with self._database.write() as connection:
            for table, ids in ((feedback, data.feedback), (edits, data.edits)):
                for some in portions(ids, IDS_AT_ONCE):
                    await connection.execute(delete(table).where(table.c.id.in_(some)))
            for pairs in portions(data.assignments, IDS_AT_ONCE):
                which = or_(*(and_(assignments.c.user_sha256 == u, assignments.c.salt == s) for u, s in pairs))
                await connection.execute(delete(assignments).where(which))
