"""What the store keeps, one frozen record each; `tables` derives the database tables from them.

Times are seconds since 1970 in UTC. Pictures are keys of the blob store. `Width` in an annotation is the width
of a text column.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from careedit.record import Record
from careedit_deployments.telemetry.catalogue import Outcome


@dataclass(frozen=True)
class Width:
    """The width of a text column; without it, the column takes a text of any length."""

    characters: int
    """Longest text, in characters. PostgreSQL refuses a longer one; SQLite does not look."""


Id = Annotated[str, Width(64)]
Sha256 = Annotated[str, Width(64)]

ANONYMOUS = "anonymous"
"""Owner of what was made without an API key."""


def new_id(kind: str) -> str:
    """A fresh id such as `job_019ac3...`: 48 bits of the time in ms, so that ids sort by age, then 80 random bits."""
    return f"{kind}_{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def id_time(identity: str) -> float:
    """When `new_id` made this id; 0 for a string that it did not make."""
    try:
        return int(identity.rpartition("_")[2][:12], 16) / 1000
    except ValueError:
        return 0.0


class KeyRecord(Record):
    """An API key; the key itself is shown once, when it is made, and kept nowhere."""

    id: Id
    """Public id; the owner of the jobs and sessions that the key makes."""
    sha256: Sha256
    """Hex SHA-256 of the key."""
    name: str
    """Whose it is, for people."""
    requests_per_minute: int | None = None
    """The key's own limit; None: the configuration's."""
    concurrent_requests: int | None = None
    """The key's own limit; None: the configuration's."""
    created: float
    """When it was made."""
    revoked: float | None = None
    """Since when it is refused; None: it is good."""


class EditRecord(Record):
    """One edit that was accepted, and how it ended."""

    id: Id
    """Id of the edit."""
    request_id: str = ""
    """Id of the HTTP request or job; `SESSION/...` for a turn of a session."""
    owner: Id = ANONYMOUS
    """Id of the API key."""
    user: str | None = None
    """Who asked, as the client named them."""
    arm: Id
    """The arm that edited."""
    shadow_of: Id | None = None
    """A shadow arm's copy: the edit that it copies; None: the user got this one."""
    expert_set_sha256: Sha256 = ""
    """Hash of the arm's expert set."""
    instruction: str | None = None
    """The instruction, only where prompts may be logged."""
    experts: Mapping[str, float] = Field(default_factory=dict)
    """Weight per expert."""
    outcome: Outcome
    """How it ended; only "failed" and "expired" speak against the arm."""
    error: str | None = None
    """Why it failed, a sentence."""
    seconds: float = 0.0
    """Wall-clock seconds from acceptance to the end."""
    traces: tuple[Mapping[str, Any], ...] = ()
    """Per image its `EditTrace` as JSON, without instruction and prompt where prompts may not be logged."""
    pictures: tuple[str, ...] = ()
    """Blob keys of the results, where they were kept."""
    scores: Mapping[str, float] | None = None
    """Judge scores by name ("overall", ...), where there are any."""
    created: float
    """When it was accepted."""


class ArmCount(Record):
    """Edits of one arm that ended in one way."""

    arm: str
    """The arm."""
    outcome: str
    """As in `EditRecord`."""
    shadow: bool
    """Whether they were copies for a shadow arm."""
    edits: int
    """How many."""
    seconds: float
    """Their mean wall-clock seconds."""


class AssignmentRecord(Record):
    """A user's arm; the salted hash decides it, this is the proof."""

    user_sha256: Sha256
    """Hex SHA-256 of salt and user key."""
    salt: Annotated[str, Width(256)]
    """The salt: another one deals anew."""
    arm: Id
    """The arm."""
    created: float
    """When the user was first seen."""


class ArmEvent(Record):
    """An arm was taken out of traffic or put back."""

    id: Id
    """Id of the event."""
    arm: Id
    """The arm."""
    kind: Literal["cut", "restored"]
    """What happened to it."""
    reason: str
    """Why, a sentence."""
    numbers: Mapping[str, float] = Field(default_factory=dict)
    """What was measured ("errors", "edits", "score")."""
    created: float
    """When."""


class FeedbackRecord(Record):
    """What a person thinks of an edit: which of two is better, or a rating of one."""

    id: Id
    """Id of the feedback."""
    owner: Id = ANONYMOUS
    """Id of the API key."""
    edits: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    """The edit that was rated, or the two that were compared."""
    winner: Id | None = None
    """The better of two; None: neither is."""
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    """1 (useless) to 5 (perfect), of one edit."""
    comment: str | None = None
    """In the person's words."""
    created: float
    """When."""


class AuditRecord(Record):
    """Something that an operator may have to explain later: a key made, an arm restored, a session deleted."""

    id: Id
    """Id of the entry."""
    actor: str
    """Who: an API key's id, or the part of the server that acted."""
    action: Id
    """What was done, e.g. "session.deleted"."""
    subject: str
    """To what: an id."""
    detail: Mapping[str, Any] = Field(default_factory=dict)
    """More; no instructions and no pictures."""
    created: float
    """When."""


JobEnd = Literal["completed", "failed", "cancelled"]
JOB_ENDS: tuple[JobEnd, ...] = get_args(JobEnd)
"""States in which a job has ended."""
JobStatus = Literal["queued", "running"] | JobEnd


class JobImage(Record):
    """One finished image of a job."""

    image: int
    """Its index, 0 to n - 1."""
    edit_id: str
    """The edit that made it; a job that was taken up again may have several."""
    arm: str
    """Who edited."""
    picture: str
    """Blob key, in the job's output format."""
    trace: Mapping[str, Any]
    """Its `EditTrace` as JSON."""


class JobRecord(Record):
    """An edit that is worked on while nobody waits for the answer."""

    id: Id
    """Id of the job."""
    owner: Id = ANONYMOUS
    """Id of the API key that made it; nobody else sees it."""
    idempotency_key: Annotated[str, Width(255)] | None = None
    """The client's; unique per owner while the job is kept."""
    body_sha256: Sha256
    """Hash of what was asked for, pictures included."""
    order: Mapping[str, Any]
    """The `EditOrder` as JSON, pictures as blob keys, and the output format."""
    webhook: str | None = None
    """Where its end is told."""
    status: JobStatus = "queued"
    """Where it stands."""
    error: Mapping[str, str] | None = None
    """"code" and "message" of a job that failed."""
    images: tuple[JobImage, ...] = ()
    """What was made so far."""
    created: float
    """When it was accepted."""
    started: float | None = None
    """When it was first begun."""
    finished: float | None = None
    """When it ended."""
    expires: float | None = None
    """When it is deleted; None while it has not ended."""
    attempt: int = 0
    """Times that it was begun."""
    worker: Annotated[str, Width(128)] | None = None
    """Who works on it, or did last."""
    lease_until: float = 0.0
    """Until when that worker is believed to live."""
    cancel_requested: bool = False
    """Whether it is to stop."""
    last_event: int = 0
    """Number of its latest event."""


EventKind = Literal["queued", "started", "progress", "partial", "image", "completed", "failed", "cancelled", "requeued"]


class JobEvent(Record):
    """Something that happened to a job; numbered from 1, so that a reader can go on where it stopped."""

    job: Id
    """Id of the job."""
    number: int
    """Its number in the job."""
    kind: EventKind
    """What happened."""
    data: Mapping[str, Any] = Field(default_factory=dict)
    """More: "image", "done", "total", "attempt", "message", ..."""
    picture: str | None = None
    """Blob key of a partial or finished image."""
    created: float
    """When."""


class WebhookRecord(Record):
    """A message to a client's server, sent until it is taken or given up."""

    id: Id
    """The `webhook-id`, the same for every attempt."""
    job: Id
    """The job that it tells of."""
    url: str
    """Where to."""
    payload: str
    """The body, as it is signed and sent."""
    attempt: int = 0
    """Times that it was sent."""
    next_at: float
    """When it is due."""
    status: Literal["pending", "delivered", "given_up"] = "pending"
    """Where it stands."""
    error: str | None = None
    """What went wrong last, a sentence."""
    created: float
    """When it was written."""


class SessionRecord(Record):
    """A picture that is edited turn by turn."""

    id: Id
    """Id of the session."""
    owner: Id = ANONYMOUS
    """Id of the API key that made it; nobody else sees it."""
    user: str | None = None
    """Who edits, for sticky arms."""
    model: str | None = None
    """Arm or expert set of its turns; None: the traffic's weights decide."""
    source: str
    """Blob key of the first picture, a PNG."""
    head: Id | None = None
    """The turn whose result the next turn edits; None: the source."""
    turns: int = 0
    """Turns that were ever made."""
    created: float
    """When it was made."""
    expires: float
    """When it is deleted; every turn puts it off."""


class TurnRecord(Record):
    """One edit of a session."""

    id: Id
    """Id of the turn."""
    session: Id
    """Its session."""
    number: int
    """1 for the session's first turn."""
    parent: Id | None = None
    """The turn whose result it edits; None: the source."""
    depth: int
    """Edits between the source and its result, itself included."""
    instruction: str
    """What was asked for."""
    edit_id: Id
    """Id of the edit."""
    arm: Id
    """Who edited."""
    picture: str
    """Blob key of the result, a PNG."""
    trace: Mapping[str, Any]
    """Its `EditTrace` as JSON."""
    created: float
    """When it was made."""
