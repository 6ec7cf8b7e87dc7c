"""What the store keeps of tenants: their keys, their share of the queue, their webhook endpoints. See also `records`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from careedit.record import Record
from careedit_deployments.state.records import ANONYMOUS, Bytes, Id, Sha256, Width
from careedit_deployments.state.tenant_policy import TenantPolicy

Scope = Literal["edit", "read", "admin", "operator"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a key may allow: sending and changing things, reading them, managing what concerns the whole tenant, and seeing what concerns
the whole server."""


Days = Annotated[float, Field(gt=0, le=36_500)]
"""A time for which data are kept, at most a hundred years: everything has an end."""


class Retention(Record):
    """Times for which a tenant's data are kept, in days, where they differ from the configuration."""

    jobs: Days | None = None
    """Days after the end of a job, the 24 hours of a batch, and the upload of a batch's input. None: `state.job_ttl_s`."""
    sessions: Days | None = None
    """Days after the last turn of a session, which `state.session_max_s` ends as well. None: `state.session_ttl_s`."""
    edits: Days | None = None
    """Days after an edit for which the log has it, and the feedback on it. None: `state.edit_ttl_s`."""
    assignments: Days | None = None
    """Days after a user's last edit for which the user's arm is stored. None: `state.assignment_ttl_s`."""


class TenantRecord(Record):
    """A customer or team. It owns jobs, sessions, edits and pictures, and has any number of API keys."""

    id: Id
    """Id of the tenant. A tenant that was made of a key of an older version has the id of that key."""
    name: str
    """Name of the tenant, for operators."""
    requests_per_minute: int | None = None
    """Requests per minute that all keys of the tenant may send. None: the limit of the configuration."""
    concurrent_requests: int | None = None
    """Edits that all keys of the tenant may have in flight. None: the limit of the configuration."""
    stored_bytes: Bytes | None = None
    """Bytes of pictures that the tenant may store. None: `state.tenant_bytes`."""
    sessions: int | None = None
    """Sessions that the tenant may have at once. None: `state.tenant_sessions`."""
    retention: Retention | None = None
    """Times for which its data are kept. None: those of the configuration."""
    clear_names: bool = False
    """Whether the names of its users are stored in clear. Default: as pseudonyms (`state/pseudonyms.py`)."""
    policy: TenantPolicy | None = None
    """What the tenant may do, and what its edits may be used for. None: the defaults of `TenantPolicy`."""
    created: float
    """Time at which the tenant was made."""


class KeyRecord(Record):
    """An API key of a tenant. The server shows the key itself once, when it is made, and stores only its hash."""

    id: Id
    """Public id of the key, for operators and for the audit log."""
    tenant: Id
    """Id of the tenant, which owns what is made with the key."""
    sha256: Sha256
    """SHA-256 of the key, in hexadecimal."""
    name: str
    """Name of the key's holder, for operators."""
    scopes: tuple[Scope, ...] = SCOPES
    """What the key allows, as in `SCOPES`. Default: everything."""
    created: float
    """Time at which the key was made."""
    expires: float | None = None
    """Time from which the server refuses the key. None: it does not expire."""
    used: float | None = None
    """Time of a recent request with the key, at most a minute before the last one. None: it was never used."""
    revoked: float | None = None
    """Time since which the server refuses the key and ends what it started. None: the key is not revoked."""


class ShareRecord(Record):
    """The work that an owner's jobs have taken, for the fair order of the queue (`state/shares.py`). Unit: evaluations."""

    owner: Id
    """Id of the tenant whose jobs are counted."""
    start: float
    """Virtual time at which the owner's latest job began."""
    served: float
    """Virtual time up to which the owner has been served: `start` and the cost of that job."""


class UsageRecord(Record):
    """What the edits of a tenant have cost on the latest day on which it started one. Only tenants with a limit have a row."""

    owner: Id
    """Id of the tenant whose edits are counted."""
    day: int
    """Number of the day since 1970, in UTC."""
    evaluations: Bytes
    """Cost of the edits that were accepted on that day, in evaluations of the transformer."""


class StorageRecord(Record):
    """What a job, a session or a result with an address stores, as the quota of its tenant counts it."""

    scope: Annotated[str, Width(128)]
    """Scope of the pictures in the blob store."""
    owner: Id
    """Id of the tenant whose quota counts the pictures."""
    bytes: Bytes
    """Bytes of the pictures. A picture that was written twice counts twice."""
    user: str | None = None
    """User for whom a result with an address was made, as in `EditRecord`. None for jobs and sessions, whose rows say it."""
    reserved: Bytes = 0
    """Bytes that are reserved for the results of a job that has not ended."""


class EndpointRecord(Record):
    """An address that gets a message when any job of its tenant ends."""

    id: Id
    """Id of the endpoint, which sorts by age."""
    owner: Id = ANONYMOUS
    """Id of the tenant that registered the endpoint. Other tenants cannot see it."""
    url: str
    """URL that messages are sent to."""
    secret: str
    """Secret that signs messages, as Standard Webhooks writes it. A signature needs the secret itself, so no hash will do."""
    old_secret: str | None = None
    """Secret before the last rotation. None: the secret was never rotated."""
    old_until: float = 0.0
    """Time until which messages are signed with the old secret as well."""
    created: float
    """Time at which the endpoint was registered."""
