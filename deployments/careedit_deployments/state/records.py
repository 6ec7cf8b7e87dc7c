"""What the store keeps, one frozen record each; `tables` derives the database tables from them.

Times are seconds since 1970 in UTC. Pictures are keys of the blob store. `Width` in an annotation is the width
of a text column.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from careedit.record import Record
from careedit_deployments.state.clock import unix_time
from careedit_deployments.telemetry.catalogue import Outcome


@dataclass(frozen=True)
class Width:
    """The width of a text column; without it, the column takes a text of any length."""

    characters: int
    """Longest text, in characters. PostgreSQL refuses a longer one; SQLite does not check."""


@dataclass(frozen=True)
class Wide:
    """An integer column of 64 bits; without it, PostgreSQL's column takes 32 bits."""


Id = Annotated[str, Width(64)]
Sha256 = Annotated[str, Width(64)]
Bytes = Annotated[int, Wide()]

ANONYMOUS = "anonymous"
"""Owner of everything that is made without an API key."""


def new_id(kind: str) -> str:
    """A new id such as `job_019ac3...`: 48 bits of the time in ms, so that ids sort by age, then 80 random bits."""
    return f"{kind}_{int(unix_time() * 1000):012x}{secrets.token_hex(10)}"


def id_time(identity: str) -> float:
    """The time at which `new_id` made this id; 0 for any other string."""
    try:
        return int(identity.rpartition("_")[2][:12], 16) / 1000
    except ValueError:
        return 0.0


class EditRecord(Record):
    """One accepted edit and its outcome."""

    id: Id
    """Id of the edit, as clients name it in feedback."""
    request_id: str = ""
    """Id of the HTTP request or job; `SESSION/...` for a turn of a session."""
    owner: Id = ANONYMOUS
    """Id of the tenant that asked for the edit."""
    user: str | None = None
    """User on whose behalf the client asked: a pseudonym (`state/pseudonyms.py`), or with `clear_names` the client's name."""
    arm: Id
    """Name of the arm that made the edit."""
    shadow_of: Id | None = None
    """Id of the edit that this one copies, for a shadow arm. None: the user got this edit."""
    expert_set_sha256: Sha256 = ""
    """Hash of the expert set of the arm."""
    instruction: str | None = None
    """The instruction. None unless `telemetry.log_prompts` is on."""
    experts: Mapping[str, float] = Field(default_factory=dict)
    """Weight of each expert in the edit; the weights sum to 1."""
    outcome: Outcome
    """How the edit ended. Only "failed" and "expired" count against the arm."""
    evidence: bool = True
    """Whether the outcome says something about the arm. It does not if the caller named the arm, or if the edit asked for so
    much that no arm could have ended it in time."""
    error: str | None = None
    """Why the edit failed, as a sentence."""
    seconds: float = 0.0
    """Wall-clock seconds from acceptance to the end."""
    traces: tuple[Mapping[str, Any], ...] = ()
    """One `EditTrace` per image as JSON, without instruction and prompt unless `telemetry.log_prompts` is on."""
    pictures: tuple[str, ...] = ()
    """Blob keys of the results, if they were stored."""
    scores: Mapping[str, float] | None = None
    """Judge scores by name ("overall", ...). None: the edit was not judged."""
    created: float
    """Time at which the edit was accepted."""


class ArmCount(Record):
    """Number of edits of one arm with one outcome."""

    arm: str
    """Name of the arm that made the edits."""
    outcome: str
    """Outcome of the edits, as in `EditRecord`."""
    shadow: bool
    """Whether the edits were copies for a shadow arm."""
    edits: int
    """Number of edits that were counted."""
    seconds: float
    """Mean wall-clock seconds of the edits."""


class AssignmentRecord(Record):
    """The arm that a user is assigned to. A salted hash decides it; this row is the record of the decision."""

    user_sha256: Sha256
    """SHA-256 of salt and user key, in hexadecimal."""
    salt: Annotated[str, Width(256)]
    """Salt of the hash. A different salt reassigns every user."""
    owner: Id | None = None
    """Id of the tenant whose user it is. None: the row is older than this field."""
    arm: Id
    """Name of the arm that the user is assigned to."""
    created: float
    """Time of the user's last edit, or at most a day before it."""


class ArmEvent(Record):
    """An arm was taken out of traffic or put back."""

    id: Id
    """Id of the event, which sorts by age."""
    arm: Id
    """Name of the arm that changed."""
    kind: Literal["cut", "restored"]
    """"cut": taken out of traffic. "restored": put back."""
    reason: str
    """Why the arm changed, as a sentence."""
    numbers: Mapping[str, float] = Field(default_factory=dict)
    """Measurements behind the decision ("errors", "edits", "score")."""
    created: float
    """Time at which the arm changed."""


class FeedbackRecord(Record):
    """A person's opinion of edits: the better one of two, or a rating of one."""

    id: Id
    """Id of the feedback. It follows from the tenant and the edits, so a second verdict replaces the first."""
    owner: Id = ANONYMOUS
    """Id of the tenant that sent the feedback."""
    edits: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    """Id of the rated edit, or ids of the two compared edits."""
    winner: Id | None = None
    """Id of the better of two edits. None: a tie."""
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    """Rating of one edit, from 1 (useless) to 5 (perfect)."""
    comment: str | None = None
    """Free text that the person wrote."""
    created: float
    """Time at which the feedback arrived."""


class AuditRecord(Record):
    """An action that an operator may have to explain later, such as a new key, a restored arm or a deleted session."""

    id: Id
    """Id of the entry, which sorts by age."""
    number: int
    """Number of the entry in the chain; the first one has 1."""
    actor: str
    """Id of an API key, an operator, the part of the server that acted, or the address of a caller without a valid key."""
    action: Id
    """Name of the action, such as "session.deleted"."""
    subject: str
    """Id of what the action changed."""
    detail: Mapping[str, Any] = Field(default_factory=dict)
    """More about the action. It holds no instructions and no pictures."""
    created: float
    """Time at which the action was done."""
    sha256: Sha256
    """Hash of the entry and of the hash of the entry before it (`state/audit.py`)."""


JobEnd = Literal["completed", "failed", "cancelled"]
JOB_ENDS: tuple[JobEnd, ...] = get_args(JobEnd)
"""Final states of a job."""
JobStatus = Literal["queued", "running"] | JobEnd


class JobImage(Record):
    """One finished image of a job."""

    image: int
    """Index of the image in the job, from 0 to n - 1."""
    edit_id: str
    """Id of the edit that made the image. A job that was continued by another worker has several."""
    arm: str
    """Name of the arm that made the image."""
    picture: str
    """Blob key of the image file, in the job's output format."""
    trace: Mapping[str, Any]
    """`EditTrace` of the image, as JSON."""
    marks: Annotated[tuple[Mapping[str, Any], ...], Field(exclude_if=lambda marks: not marks)] = ()
    """Each `PolicyMark` of the image and of its input, as JSON. Not stored if empty, so that older replicas can read it."""


class JobRecord(Record):
    """An edit that runs in the background."""

    id: Id
    """Id of the job, which sorts by age."""
    owner: Id = ANONYMOUS
    """Id of the tenant that made the job. Other tenants cannot see it."""
    key: Id | None = None
    """Id of the API key that made the job, whose revocation ends it. None: it was made without a key."""
    idempotency_key: Annotated[str, Width(255)] | None = None
    """Idempotency key that the client chose. It is unique per owner while the job is stored."""
    body_sha256: Sha256
    """Hash of the request, pictures included."""
    order: Mapping[str, Any]
    """The `EditOrder` as JSON, with pictures as blob keys, and the output format."""
    cost: float = 1.0
    """Transformer evaluations that the job is expected to take; its tenant's share of the queue counts them."""
    webhook: str | None = None
    """URL that is called when the job ends. None: no webhook."""
    status: JobStatus = "queued"
    """State of the job. The last three states are final."""
    error: Mapping[str, str] | None = None
    """"code" and "message" of a failed job, or of one that was cancelled because its key was revoked."""
    images: tuple[JobImage, ...] = ()
    """Images that are finished so far."""
    created: float
    """Time at which the job was accepted."""
    started: float | None = None
    """Time of the first attempt. None: no worker has started it."""
    finished: float | None = None
    """Time at which the job reached a final state."""
    expires: float | None = None
    """Time at which the job is deleted. None while the job has not ended."""
    attempt: int = 0
    """Number of times that a worker started the job."""
    worker: Annotated[str, Width(128)] | None = None
    """Name of the worker that runs the job, or ran it last."""
    lease_until: float = 0.0
    """Time at which the worker's lease ends unless it is renewed."""
    cancel_requested: bool = False
    """Whether the owner asked to cancel the job."""
    last_event: int = 0
    """Number of the latest event of the job."""


EventKind = Literal["queued", "started", "progress", "partial", "image", "completed", "failed", "cancelled", "requeued"]


class JobEvent(Record):
    """A change of a job. Events are numbered from 1, so that a reader can continue where it stopped."""

    job: Id
    """Id of the job that changed."""
    number: int
    """Number of the event within its job."""
    kind: EventKind
    """Kind of change, such as "progress"."""
    data: Mapping[str, Any] = Field(default_factory=dict)
    """More about the change: "image", "done", "total", "attempt", "message", ..."""
    picture: str | None = None
    """Blob key of a preview or a finished image."""
    created: float
    """Time at which the job changed."""


class WebhookRecord(Record):
    """A message to a client's server. It is sent until the server accepts it or the attempts are used up."""

    id: Id
    """Value of the `webhook-id` header, the same for every attempt."""
    job: Id
    """Id of the job whose end the message reports."""
    owner: Id = ANONYMOUS
    """Id of the tenant that owns the job."""
    endpoint: Id | None = None
    """Id of the endpoint whose secrets sign the message. None: the address of one job, signed with the server's key."""
    url: str
    """URL that the message is sent to."""
    payload: str
    """Body of the message, as it is signed and sent."""
    attempt: int = 0
    """Number of times that the message was sent."""
    resent_after: int = 0
    """Number of attempts before the owner asked to send the message again; later ones count from there."""
    attempted: float | None = None
    """Time of the latest attempt. None: the message was not sent yet."""
    next_at: float
    """Time at which the next attempt is due."""
    status: Literal["pending", "delivered", "given_up"] = "pending"
    """"pending" until the server accepts the message or the attempts are used up."""
    error: str | None = None
    """What went wrong at the last attempt, as a sentence."""
    created: float
    """Time at which the message was written."""


class SessionRecord(Record):
    """A picture that is edited turn by turn."""

    id: Id
    """Id of the session, which sorts by age."""
    owner: Id = ANONYMOUS
    """Id of the tenant that made the session. Other tenants cannot see it."""
    user: str | None = None
    """User who edits, as in `EditRecord`. All turns of a user go to the same arm."""
    model: str | None = None
    """Arm or expert set of the turns. None: the weights of the arms decide."""
    source: str
    """Blob key of the first picture: the file that was sent, without its metadata, or a PNG (`edits/stored.py`)."""
    ingredient: str | None = None
    """Blob key of the file that was sent with its Content Credentials, as an ingredient. None: results do not keep them."""
    head: Id | None = None
    """Id of the turn whose result the next turn edits. None: the source."""
    turns: int = 0
    """Number of turns that were ever made, undone ones included."""
    created: float
    """Time at which the session was made."""
    expires: float
    """Time at which the session is deleted. Every turn extends it, up to `state.session_max_s` after `created`."""


class TurnRecord(Record):
    """One edit of a session."""

    id: Id
    """Id of the turn, which sorts by age."""
    session: Id
    """Id of the session that the turn belongs to."""
    number: int
    """Number of the turn; the first one has 1."""
    parent: Id | None = None
    """Id of the turn whose result this one edits. None: the source."""
    depth: int
    """Number of edits between the source and the result, this one included."""
    instruction: str
    """What the user asked to change."""
    edit_id: Id
    """Id of the edit in the log of edits."""
    arm: Id
    """Name of the arm that made the edit."""
    picture: str
    """Blob key of the result, a PNG."""
    trace: Mapping[str, Any]
    """`EditTrace` of the result, as JSON."""
    marks: tuple[Mapping[str, Any], ...] | None = None
    """Each `PolicyMark` of the turn's input and result, as JSON. None: the turn has no mark, or is older than this field."""
    created: float
    """Time at which the turn was made."""
