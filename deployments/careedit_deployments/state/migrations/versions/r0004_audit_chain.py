"""The audit log becomes a chain of hashes; the entries that exist are its beginning."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from careedit_deployments.state.audit import FIRST, entry_sha256

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

AUDIT = sa.table(
    "audit",
    *(sa.column(name) for name in ("id", "number", "actor", "action", "subject", "created", "sha256")),
    sa.column("detail", sa.JSON()),
)


def upgrade() -> None:
    """Number and hash the entries in the order of their times."""
    with op.batch_alter_table("audit") as audit:
        audit.add_column(sa.Column("number", sa.Integer(), nullable=True))
        audit.add_column(sa.Column("sha256", sa.String(length=64), nullable=True))
    connection, previous = op.get_bind(), FIRST
    rows = connection.execute(sa.select(AUDIT).order_by(AUDIT.c.created, AUDIT.c.id)).mappings().all()
    for number, row in enumerate(rows, 1):
        previous = entry_sha256(previous, {**row, "number": number})
        change = sa.update(AUDIT).where(AUDIT.c.id == row["id"]).values(number=number, sha256=previous)
        connection.execute(change)
    with op.batch_alter_table("audit") as audit:
        audit.alter_column("number", existing_type=sa.Integer(), nullable=False)
        audit.alter_column("sha256", existing_type=sa.String(length=64), nullable=False)
        audit.create_unique_constraint(op.f("uq_audit_number"), ["number"])


def downgrade() -> None:
    """Remove numbers and hashes."""
    with op.batch_alter_table("audit") as audit:
        audit.drop_constraint(op.f("uq_audit_number"), type_="unique")
        audit.drop_column("number")
        audit.drop_column("sha256")
