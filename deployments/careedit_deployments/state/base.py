"""`Store` and `BlobStore`: the two protocols through which everything is remembered.

Every method may raise `UnavailableError` when the database or the file system does not answer. `get` and its kin raise
`NotFoundError` for an id that does not exist or, with `owner` given, is another owner's: the two look the same outside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

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
from careedit_deployments.state.tables import JobTable, SessionTable, Topic, WebhookTable

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

    async def latest(
        self, *, arm: str | None = None, since: float = 0.0, limit: int = 100, outcomes: Collection[str] = ()
    ) -> list[EditRecord]:
        """Edits, newest first; those that ended in one of these ways (none named: in any)."""
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
        """Delete edits, and feedback, that are older; returns how many edits."""
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
        """The scopes of a kind ("jobs", "sessions", "files"), e.g. `jobs/job_...`."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
