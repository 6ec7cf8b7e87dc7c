"""`Store` and `BlobStore`: the two protocols through which everything is remembered.

Every method may raise `UnavailableError` when the database or the file system does not answer. `get` and its kin raise
`NotFoundError` for an id that does not exist or, with `owner` given, is another owner's: the two look the same outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

from careedit_deployments.state.records import (
    ANONYMOUS,
    ArmCount,
    ArmEvent,
    AssignmentRecord,
    AuditRecord,
    EditRecord,
    EventKind,
    FeedbackRecord,
    JobEnd,
    JobEvent,
    JobImage,
    JobRecord,
    JobStatus,
    KeyRecord,
    SessionRecord,
    TurnRecord,
    WebhookRecord,
    id_time,
    new_id,
)

__all__ = [
    "ANONYMOUS",
    "ArmCount",
    "ArmEvent",
    "ArmLog",
    "AssignmentRecord",
    "AuditLog",
    "AuditRecord",
    "BlobStore",
    "EditLog",
    "EditRecord",
    "EventKind",
    "FeedbackLog",
    "FeedbackRecord",
    "JobEnd",
    "JobEvent",
    "JobImage",
    "JobRecord",
    "JobStatus",
    "JobTable",
    "KeyRecord",
    "Keys",
    "SessionRecord",
    "SessionTable",
    "Store",
    "Topic",
    "TurnRecord",
    "WebhookRecord",
    "WebhookTable",
    "id_time",
    "new_id",
]

Topic = Literal["queued", "told", "cancel", "webhook"]
"""Changes of jobs that one can listen to: one was queued, an event was written, an end was asked for, a webhook is due."""


class Keys(Protocol):
    """API keys, by hash."""

    async def add(self, key: KeyRecord) -> None:
        """Keep a key."""
        ...

    async def find(self, sha256: str) -> KeyRecord | None:
        """The key of this hash, unless it was revoked."""
        ...

    async def all(self) -> list[KeyRecord]:
        """Every key, revoked ones included, oldest first."""
        ...

    async def revoke(self, key_id: str) -> bool:
        """Refuse a key from now on; False: there is no good key of this id."""
        ...


class EditLog(Protocol):
    """Edits and how they ended."""

    async def add(self, edit: EditRecord) -> None:
        """Keep an edit; one of the same id is replaced."""
        ...

    async def get(self, edit_id: str, *, owner: str | None = None) -> EditRecord:
        """One edit."""
        ...

    async def latest(self, *, arm: str | None = None, since: float = 0.0, limit: int = 100) -> list[EditRecord]:
        """Edits, newest first."""
        ...

    async def counts(self, *, since: float = 0.0) -> list[ArmCount]:
        """Edits by arm, outcome and whether they were a shadow's."""
        ...

    async def score(self, edit_id: str, scores: Mapping[str, float]) -> None:
        """Add a judge's scores, if the edit is still kept."""
        ...

    async def forget(self, request_id: str) -> int:
        """Take words, user, traces and pictures from the edits of a request, job or session; returns how many.

        What remains says nothing of the person: arm, experts, outcome, seconds, scores. Comments on them go too.
        """
        ...

    async def prune(self, before: float) -> int:
        """Delete edits that are older; returns how many."""
        ...


class ArmLog(Protocol):
    """Who was assigned to which arm, and which arms are cut out."""

    async def assign(self, assignment: AssignmentRecord) -> None:
        """Keep an assignment; the first one of a user and salt stays, with its arm renewed."""
        ...

    async def assigned(self, salt: str) -> Mapping[str, int]:
        """Users per arm."""
        ...

    async def add(self, event: ArmEvent) -> None:
        """Keep an event."""
        ...

    async def events(self, *, arm: str | None = None, limit: int = 100) -> list[ArmEvent]:
        """Events, newest first."""
        ...

    async def cut(self) -> frozenset[str]:
        """Arms whose latest event cut them out."""
        ...


class FeedbackLog(Protocol):
    """What people think of edits."""

    async def add(self, feedback: FeedbackRecord) -> None:
        """Keep it."""
        ...

    async def latest(self, *, since: float = 0.0, limit: int = 1000) -> list[FeedbackRecord]:
        """Feedback, newest first."""
        ...


class AuditLog(Protocol):
    """What was done by whom."""

    async def add(self, actor: str, action: str, subject: str, **detail: Any) -> None:
        """Keep an entry, made now."""
        ...

    async def latest(self, *, limit: int = 100) -> list[AuditRecord]:
        """Entries, newest first."""
        ...


class JobTable(Protocol):
    """Jobs, claimed by lease: what a worker writes counts only while its claim (`worker`, `attempt`) stands."""

    async def add(self, job: JobRecord) -> JobRecord:
        """Queue a job, or return the one that has this owner's idempotency key; `ConflictError` if its body differs."""
        ...

    async def get(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """One job."""
        ...

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[JobRecord]:
        """An owner's jobs, newest first, those older than the job `before`."""
        ...

    async def ahead(self, job: JobRecord) -> int:
        """Queued jobs that come before this one."""
        ...

    async def claim(self, worker: str, *, lease_s: float, attempts: int) -> JobRecord | None:
        """Take the oldest job that is queued or whose worker is silent; None: there is none.

        A silent worker's job that was begun `attempts` times fails instead, with that reason.
        """
        ...

    async def beat(self, job: JobRecord, *, lease_s: float) -> bool | None:
        """Renew the lease; whether the job is to stop, None: the claim is lost."""
        ...

    async def append(self, job: JobRecord, event: JobEvent, *, image: JobImage | None = None) -> bool | None:
        """Write an event (its number is given here) and an image that was made; returns as `beat` does."""
        ...

    async def finish(
        self, job: JobRecord, status: JobEnd, *, error: Mapping[str, str] | None = None
    ) -> JobRecord | None:
        """End a claimed job: status, last event and webhook in one transaction. None: the claim is lost."""
        ...

    async def release(self, job: JobRecord) -> bool:
        """Put a claimed job back into the queue, the attempt not counted: its worker shuts down."""
        ...

    async def cancel(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """Ask for a job's end: a queued one is cancelled at once, a running one by its worker."""
        ...

    async def events(self, job_id: str, *, after: int = 0) -> list[JobEvent]:
        """A job's events with numbers above `after`, in order."""
        ...

    async def delete(self, job_id: str) -> None:
        """Remove a job, its events and its webhooks; nothing if it is gone."""
        ...

    async def expired(self) -> list[str]:
        """Ids of jobs whose time has come."""
        ...

    async def known(self, ids: Collection[str]) -> frozenset[str]:
        """Which of these ids are jobs."""
        ...

    def listen(self, to: Topic) -> asyncio.Event:
        """Set at the next change of that kind that this process makes; take it before you look, then wait for it.

        Other processes' changes do not ring: wait with a time limit, and look again.
        """
        ...


class WebhookTable(Protocol):
    """Webhooks that are due, claimed by lease."""

    async def claim(self, *, lease_s: float) -> WebhookRecord | None:
        """Take one that is due; nobody else gets it within `lease_s` seconds. Its `attempt` counts this one."""
        ...

    async def settle(
        self, webhook: WebhookRecord, *, error: str | None = None, retry_in_s: float | None = None
    ) -> None:
        """Say how an attempt ended: no `error` means delivered, no `retry_in_s` with an error means given up."""
        ...

    async def of(self, job_id: str) -> list[WebhookRecord]:
        """A job's webhooks."""
        ...


class SessionTable(Protocol):
    """Sessions and their turns."""

    async def add(self, session: SessionRecord) -> None:
        """Keep a session."""
        ...

    async def get(self, session_id: str, *, owner: str | None = None) -> SessionRecord:
        """One session that has not expired."""
        ...

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[SessionRecord]:
        """An owner's sessions, newest first."""
        ...

    async def add_turn(self, turn: TurnRecord, *, expires: float) -> TurnRecord:
        """Keep a turn (its number is given here), make it the head and put the session's end off."""
        ...

    async def turn(self, session_id: str, turn_id: str) -> TurnRecord:
        """One turn."""
        ...

    async def turns(self, session_id: str) -> list[TurnRecord]:
        """Every turn, in the order in which they were made."""
        ...

    async def move_head(self, session_id: str, *, seen: str | None, to: str | None) -> bool:
        """Point the session at another turn, if it still points at `seen`."""
        ...

    async def delete(self, session_id: str) -> None:
        """Remove a session and its turns; nothing if it is gone."""
        ...

    async def expired(self) -> list[str]:
        """Ids of sessions whose time has come."""
        ...

    async def known(self, ids: Collection[str]) -> frozenset[str]:
        """Which of these ids are sessions."""
        ...


class Store(Protocol):
    """Everything that is remembered but pictures."""

    @property
    def keys(self) -> Keys:
        """API keys."""
        ...

    @property
    def edits(self) -> EditLog:
        """Edits."""
        ...

    @property
    def arms(self) -> ArmLog:
        """Assignments and arm events."""
        ...

    @property
    def feedback(self) -> FeedbackLog:
        """Feedback."""
        ...

    @property
    def audit(self) -> AuditLog:
        """Audit."""
        ...

    @property
    def jobs(self) -> JobTable:
        """Jobs."""
        ...

    @property
    def webhooks(self) -> WebhookTable:
        """Webhooks."""
        ...

    @property
    def sessions(self) -> SessionTable:
        """Sessions."""
        ...

    async def ping(self) -> None:
        """Raise `UnavailableError` unless the database answers."""
        ...

    async def scrub(self) -> None:
        """Make deleted rows leave the disk as far as the database can be told to."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


class BlobStore(Protocol):
    """Pictures by key `SCOPE/SHA256.SUFFIX`, e.g. `sessions/session_.../9f...e1.png`.

    A scope belongs to one job or session and is deleted as a whole: nothing is shared between scopes, so there are no
    counts that could drift, and nobody learns from a key that another one has the same picture.
    """

    async def put(self, scope: str, data: bytes, *, suffix: str) -> str:
        """Keep bytes and return their key; the same bytes in the same scope are kept once."""
        ...

    async def get(self, key: str) -> bytes:
        """The bytes of a key. Raises `NotFoundError`; `UnavailableError` if they are not what was put there."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete single pictures; nothing for those that are gone."""
        ...

    async def delete_scope(self, scope: str) -> None:
        """Delete every byte of a scope; nothing if there is none."""
        ...

    async def scopes(self, kind: str) -> list[str]:
        """The scopes of a kind ("jobs", "sessions"), e.g. `jobs/job_...`."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
