"""The database tables, derived from the records: one column per field. A test checks that `migrations/` makes the same."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    select,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

from careedit.record import Record
from careedit_deployments.state.batch_records import BatchLine, BatchRecord, FileRecord
from careedit_deployments.state.records import (
    ArmEvent,
    AssignmentRecord,
    AuditRecord,
    EditRecord,
    FeedbackRecord,
    JobEvent,
    JobRecord,
    SessionRecord,
    TurnRecord,
    WebhookRecord,
    Wide,
    Width,
)
from careedit_deployments.state.tenant_records import (
    EndpointRecord,
    KeyRecord,
    ShareRecord,
    StorageRecord,
    TenantRecord,
    UsageRecord,
)

AnyRecord = TypeVar("AnyRecord", bound=Record)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables. Constraint names do not depend on the database, so that migrations can name them."""

_TYPES: Mapping[object, TypeEngine[Any]] = {
    bool: Boolean(), int: Integer(), float: Double(), str: Text(), Literal: String(16)
}  # fmt: skip


def _table(name: str, record: type[Record], *more: SchemaItem, key: tuple[str, ...] = ("id",)) -> Table:
    """The table of a record, with its primary key, indexes and other constraints."""
    hints = get_type_hints(record, include_extras=True)
    columns = (_column(field, hints[field], primary_key=field in key) for field in record.model_fields)
    return Table(name, metadata, *columns, *more)


def _column(name: str, hint: Any, *, primary_key: bool) -> Column[Any]:
    """A column: text of the annotated width, else the type that fits the Python type, else JSON. NULL where None is allowed."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    nullable = type(None) in choices
    kind, *extras = get_args(choices[0]) if get_origin(choices[0]) is Annotated else (choices[0],)
    text = next((String(extra.characters) for extra in extras if isinstance(extra, Width)), None)
    wide = BigInteger() if any(isinstance(extra, Wide) for extra in extras) else None
    column_type = text or wide or _TYPES.get(kind) or _TYPES.get(get_origin(kind)) or JSON(none_as_null=nullable)
    return Column(name, column_type, primary_key=primary_key, nullable=nullable, autoincrement=False)


tenants = _table("tenants", TenantRecord)
keys = _table(
    "keys",
    KeyRecord,
    ForeignKeyConstraint(["tenant"], ["tenants.id"]),
    UniqueConstraint("sha256"),
    Index(None, "tenant"),
)
edits = _table("edits", EditRecord, Index(None, "request_id"), Index(None, "arm", "created"), Index(None, "created"))
assignments = _table(
    "assignments", AssignmentRecord, Index(None, "owner"), Index(None, "created"), key=("user_sha256", "salt")
)
arm_events = _table("arm_events", ArmEvent, Index(None, "arm"))
feedback = _table("feedback", FeedbackRecord, Index(None, "created"))
audit = _table("audit", AuditRecord, UniqueConstraint("number"))
jobs = _table(
    "jobs",
    JobRecord,
    UniqueConstraint("owner", "idempotency_key"),
    Index(None, "expires"),
    Index(None, "status", "created"),
)
usage = _table("usage", UsageRecord, key=("owner",))
shares = _table("shares", ShareRecord, Index(None, "start"), key=("owner",))
job_events = _table(
    "job_events", JobEvent, ForeignKeyConstraint(["job"], ["jobs.id"], ondelete="CASCADE"), key=("job", "number")
)
webhooks = _table(
    "webhooks",
    WebhookRecord,
    ForeignKeyConstraint(["job"], ["jobs.id"], ondelete="CASCADE"),
    Index(None, "job"),
    Index(None, "status", "next_at"),
)
endpoints = _table("webhook_endpoints", EndpointRecord, UniqueConstraint("owner", "url"))
sessions = _table("sessions", SessionRecord, Index(None, "owner"), Index(None, "expires"))
turns = _table(
    "turns",
    TurnRecord,
    ForeignKeyConstraint(["session"], ["sessions.id"], ondelete="CASCADE"),
    UniqueConstraint("session", "number"),
)
files = _table("files", FileRecord, Index(None, "owner"), Index(None, "expires"))
batches = _table("batches", BatchRecord, Index(None, "owner"), Index(None, "expires"), Index(None, "status", "created"))
batch_lines = _table(
    "batch_lines",
    BatchLine,
    ForeignKeyConstraint(["batch"], ["batches.id"], ondelete="CASCADE"),
    Index(None, "job"),
    key=("batch", "number"),
)
storage = _table("storage", StorageRecord, Index(None, "owner"), key=("scope",))


def values_of(record: Record) -> dict[str, Any]:
    """A record as a row: nested records, mappings and tuples as JSON; NUL, which PostgreSQL's text cannot hold, as �."""
    values = record.model_dump(mode="json")
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in values.items()}


def record_of(kind: type[AnyRecord], row: Row[Any]) -> AnyRecord:
    """A whole row as its record."""
    return kind(**row._mapping)


def newest(query: Select[Any], table: Table, limit: int) -> Select[Any]:
    """The query for the `limit` newest rows, newest first."""
    return query.order_by(table.c.created.desc(), table.c.id.desc()).limit(limit)


def older(table: Table, owner: str, before: str | None, limit: int) -> Select[Any]:
    """The query for a page: rows of an owner that are older than the id `before` (None: from the newest on), newest first."""
    query = select(table).where(table.c.owner == owner)
    if before is not None:
        query = query.where(table.c.id < before)
    return query.order_by(table.c.id.desc()).limit(limit)
