"""The tables. A column has the name of its record's field; `migrations/` makes the same tables, and a test compares."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from careedit.record import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables; constraints have names that do not depend on the database, so that migrations can name them."""

ID = String(64)
HASH = String(64)


def _created() -> Column[float]:
    return Column("created", Double, nullable=False)


keys = Table(
    "keys",
    metadata,
    Column("id", ID, primary_key=True),
    Column("sha256", HASH, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("requests_per_minute", Integer),
    Column("concurrent_requests", Integer),
    _created(),
    Column("revoked", Double),
)

edits = Table(
    "edits",
    metadata,
    Column("id", ID, primary_key=True),
    Column("request_id", Text, nullable=False, index=True),
    Column("owner", ID, nullable=False),
    Column("user", Text),
    Column("arm", ID, nullable=False),
    Column("shadow_of", ID),
    Column("expert_set_sha256", HASH, nullable=False),
    Column("instruction", Text),
    Column("experts", JSON, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("error", Text),
    Column("seconds", Double, nullable=False),
    Column("traces", JSON, nullable=False),
    Column("pictures", JSON, nullable=False),
    Column("scores", JSON(none_as_null=True)),
    _created(),
    Index(None, "arm", "created"),
    Index(None, "created"),
)

assignments = Table(
    "assignments",
    metadata,
    Column("user_sha256", HASH, primary_key=True),
    Column("salt", String(256), primary_key=True),
    Column("arm", ID, nullable=False),
    _created(),
)

arm_events = Table(
    "arm_events",
    metadata,
    Column("id", ID, primary_key=True),
    Column("arm", ID, nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", JSON, nullable=False),
    _created(),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", ID, primary_key=True),
    Column("owner", ID, nullable=False),
    Column("edits", JSON, nullable=False),
    Column("winner", ID),
    Column("rating", Integer),
    Column("comment", Text),
    Column("created", Double, nullable=False, index=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", ID, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("action", ID, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    _created(),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", ID, primary_key=True),
    Column("owner", ID, nullable=False),
    Column("idempotency_key", String(255)),
    Column("body_sha256", HASH, nullable=False),
    Column("order", JSON, nullable=False),
    Column("webhook", Text),
    Column("status", String(16), nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("images", JSON, nullable=False),
    _created(),
    Column("started", Double),
    Column("finished", Double),
    Column("expires", Double, index=True),
    Column("attempt", Integer, nullable=False),
    Column("worker", String(128)),
    Column("lease_until", Double, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("last_event", Integer, nullable=False),
    UniqueConstraint("owner", "idempotency_key"),
    Index(None, "status", "created"),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job", ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("data", JSON, nullable=False),
    Column("picture", Text),
    _created(),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", ID, primary_key=True),
    Column("job", ID, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("error", Text),
    _created(),
    Index(None, "status", "next_at"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("owner", ID, nullable=False, index=True),
    Column("user", Text),
    Column("model", Text),
    Column("source", Text, nullable=False),
    Column("head", ID),
    Column("turns", Integer, nullable=False),
    _created(),
    Column("expires", Double, nullable=False, index=True),
)

turns = Table(
    "turns",
    metadata,
    Column("id", ID, primary_key=True),
    Column("session", ID, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("parent", ID),
    Column("depth", Integer, nullable=False),
    Column("instruction", Text, nullable=False),
    Column("edit_id", ID, nullable=False),
    Column("arm", ID, nullable=False),
    Column("picture", Text, nullable=False),
    Column("trace", JSON, nullable=False),
    _created(),
    UniqueConstraint("session", "number"),
)


def values_of(record: Record) -> dict[str, Any]:
    """A record as a row: nested records, mappings and tuples as JSON; NUL, which PostgreSQL's text cannot hold, as �."""
    values = record.model_dump(mode="json")
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in values.items()}


def record_of(kind: type[AnyRecord], row: Row[Any]) -> AnyRecord:
    """A whole row as its record."""
    return kind(**row._mapping)
