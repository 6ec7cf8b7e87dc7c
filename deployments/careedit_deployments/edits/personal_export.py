"""A copy of what is stored of an end user of a tenant, or of all its users: JSON, image files, and a manifest at the end.

It is meant for the person (GDPR, articles 15 and 20), so it has everything that an erasure would delete.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from pathlib import PurePosixPath
from typing import Any
from zipfile import ZipFile, ZipInfo

from anyio.to_thread import run_sync
from pydantic import BaseModel

from careedit.errors import ImageError
from careedit.files import json_digest
from careedit.images import inspect_picture
from careedit.record import Record
from careedit_deployments.edits.stored import STORED_LIMITS, scope_of
from careedit_deployments.errors import LostImageError, NotFoundError
from careedit_deployments.state.batch_records import BatchRecord, FileRecord
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.database import portions
from careedit_deployments.state.persons import PersonData
from careedit_deployments.state.records import (
    AssignmentRecord,
    AuditRecord,
    EditRecord,
    FeedbackRecord,
    JobEvent,
    JobRecord,
    SessionRecord,
    TurnRecord,
    WebhookRecord,
    new_id,
)
from careedit_deployments.state.store import Store
from careedit_deployments.state.tables import (
    assignments,
    audit,
    batches,
    edits,
    feedback,
    job_events,
    jobs,
    sessions,
    turns,
    webhooks,
)
from careedit_deployments.state.tables import files as uploads

LINES = 1000
"""Maximum number of lines of one file, so that an export of any size fits in memory."""

ExportFile = tuple[str, bytes]
"""The name of a file in an export, with "/" between its parts, and its content."""


class ExportedFile(Record):
    """A file of an export, as its manifest lists it."""

    name: str
    """Name of the file, with "/" between its parts."""
    bytes: int
    """Size of the file in bytes."""
    sha256: str
    """SHA-256 of the file, in hexadecimal."""


class Manifest(Record):
    """What an export contains; its last file, so an export without it is not complete."""

    version: int = 1
    """Version of this format; always 1."""
    id: str
    """Id of the export, as the audit log has it."""
    tenant: str
    """Id of the tenant whose data were exported."""
    whole: bool
    """Whether the data of all users were exported, not those of one user."""
    exported_at: float
    """Time of the export, in Unix seconds."""
    kinds: dict[str, int]
    """Number of items by kind: jobs, batches, uploads, sessions, files, edits, feedback, assignments, audit, pictures."""
    lost_pictures: tuple[str, ...] = ()
    """Names of pictures whose file is missing or damaged in the store."""
    files: tuple[ExportedFile, ...]
    """Every other file of the export."""


async def find_data(store: Store, tenant: str, names: Collection[str] | None) -> PersonData:
    """What is stored of the user with these stored names (None: of all users). Raises `NotFoundError` if it is nothing."""
    data = await store.persons.find(tenant, names)
    if not any(data.model_dump().values()):
        who = "this tenant" if names is None else "this user"
        raise NotFoundError(f"Nothing is stored of {who}; check the name and the tenant.")
    return data


async def export_files(
    store: Store, blobs: BlobStore, data: PersonData, tenant: str, *, whole: bool, actor: str
) -> AsyncGenerator[ExportFile]:
    """Every file of an export, one after the other; the last is `manifest.json`. What is deleted meanwhile is left out."""
    kinds = dict.fromkeys((*PersonData.model_fields, "audit", "pictures"), 0)
    listed: list[ExportedFile] = []
    lost: list[str] = []

    def add(name: str, content: bytes, kind: str, count: int = 1) -> ExportFile:
        listed.append(ExportedFile(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
        kinds[kind] += count
        return name, content

    for kind, ids in (("jobs", data.jobs), ("sessions", data.sessions)):
        for identity in ids:
            content = await (_job if kind == "jobs" else _session)(store, identity)
            if content is None:
                continue
            scope = scope_of(identity)
            names: dict[str, str] = {}
            for key in await blobs.keys(scope):
                try:
                    picture = await blobs.get(key)
                except LostImageError:
                    lost.append(key)
                    continue
                names[key] = await _name(key, picture)
                yield add(names[key], picture, "pictures")
            yield add(f"{scope}/{kind[:-1]}.json", _renamed(_document(content), names), kind)
    for scope in data.files:
        kinds["files"] += 1
        for key in await blobs.keys(scope):
            try:
                yield add(key, await blobs.get(key), "pictures")
            except LostImageError:
                lost.append(key)
    for identity in data.uploads if whole else ():  # an input may name other users; of one user, each line is a job
        for key in await blobs.keys(scope_of(identity)):
            yield add(f"{scope_of(identity)}/input.jsonl", await blobs.get(key), "uploads", 0)
    async for kind, some, number in _logs(store, data, tenant, whole=whole):
        lines = "".join(f"{json.dumps(line)}\n" for line in some)
        yield add(f"{kind}-{number:04}.jsonl", lines.encode(), kind, len(some))
    manifest = Manifest(
        id=new_id("export"),
        tenant=tenant,
        whole=whole,
        exported_at=unix_time(),
        kinds=kinds,
        lost_pictures=tuple(lost),
        files=tuple(listed),
    ).model_dump(mode="json")
    await store.audit.add(
        actor, "privacy.exported", tenant, export=manifest["id"], sha256=json_digest(manifest), **kinds
    )
    yield "manifest.json", _document(manifest)


async def zipped(files: AsyncGenerator[ExportFile]) -> AsyncGenerator[bytes]:
    """The files as the parts of one zip file. Images are compressed already, so nothing is compressed."""
    out = _Parts()
    async with aclosing(files):
        with ZipFile(out, "w") as archive:
            async for name, content in files:
                archive.writestr(ZipInfo(name), content)
                yield out.take()
    yield out.take()


class _Parts(io.RawIOBase):
    """A file that is only written to, and is taken away in parts."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data: Any) -> int:
        """Keep the data until they are taken."""
        self._written += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        part = bytes(self._written)
        self._written.clear()
        return part


async def _job(store: Store, job_id: str) -> dict[str, Any] | None:
    """A job with its events and the messages about its end; None if it is gone."""
    found = await store.persons.rows(JobRecord, jobs.c.id, [job_id])
    events = await store.persons.rows(JobEvent, job_events.c.job, [job_id])
    messages = await store.persons.rows(WebhookRecord, webhooks.c.job, [job_id])
    return (
        {**_plain(found[0]), "events": [*map(_plain, events)], "messages": [*map(_plain, messages)]} if found else None
    )


async def _session(store: Store, session_id: str) -> dict[str, Any] | None:
    """A session with its turns; None if it is gone."""
    found = await store.persons.rows(SessionRecord, sessions.c.id, [session_id])
    made = await store.persons.rows(TurnRecord, turns.c.session, [session_id])
    return {**_plain(found[0]), "turns": [*map(_plain, made)]} if found else None


async def _logs(
    store: Store, data: PersonData, tenant: str, *, whole: bool
) -> AsyncIterator[tuple[str, list[dict[str, Any]], int]]:
    """The lines of the logs in portions: kind, lines, number of the portion from 1."""
    for number, ids in enumerate(portions(data.batches, LINES), 1):
        yield "batches", [*map(_plain, await store.persons.rows(BatchRecord, batches.c.id, ids))], number
    for number, ids in enumerate(portions(data.uploads, LINES), 1):
        yield "uploads", [*map(_plain, await store.persons.rows(FileRecord, uploads.c.id, ids))], number
    for number, ids in enumerate(portions(data.edits, LINES), 1):
        yield "edits", [*map(_plain, await store.persons.rows(EditRecord, edits.c.id, ids))], number
    for number, ids in enumerate(portions(data.feedback, LINES), 1):
        yield "feedback", [*map(_plain, await store.persons.rows(FeedbackRecord, feedback.c.id, ids))], number
    for number, pairs in enumerate(portions(data.assignments, LINES), 1):
        hashes = {user for user, _ in pairs}
        found = await store.persons.rows(AssignmentRecord, assignments.c.user_sha256, hashes)
        yield "assignments", [_plain(one) for one in found if (one.user_sha256, one.salt) in set(pairs)], number
    about = (*data.jobs, *data.sessions, *data.edits, *((tenant,) if whole else ()))
    entries = await store.persons.rows(AuditRecord, audit.c.subject, about)
    for number, some in enumerate(
        portions([{"id": one.id, "created": one.created, "event": one.action} for one in entries], LINES), 1
    ):
        yield "audit", list(some), number


async def _name(key: str, picture: bytes) -> str:
    """The name of a stored image, with the suffix of its format: `kept_file` and `keep_order` store it under one that says none."""
    path = PurePosixPath(key)
    if path.suffix in (".sent", ".cred"):
        try:
            kind, _ = await run_sync(lambda: inspect_picture(picture, limits=STORED_LIMITS))
        except ImageError:
            return key
        return str(path.with_name(f"{path.stem}{'-credentials' if path.suffix == '.cred' else ''}.{kind.lower()}"))
    return key


def _plain(record: BaseModel) -> dict[str, Any]:
    """A record as JSON, without what is not about the person: hosts, other users, and the salt that decides who gets which arm."""
    return record.model_dump(mode="json", exclude={"worker", "lease_until", "salt", "users"})


def _document(content: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=2)}\n".encode()


def _renamed(document: bytes, names: Mapping[str, str]) -> bytes:
    """The document with the names of its images in this export instead of their keys in the store."""
    for key, name in names.items():
        document = document.replace(key.encode(), name.encode())
    return document
