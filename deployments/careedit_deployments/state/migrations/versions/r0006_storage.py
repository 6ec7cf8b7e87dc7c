"""What tenants store is counted, and may be limited for each tenant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the counts. The pictures of jobs and sessions that exist are not counted; they expire within days."""
    op.create_table(
        "storage",
        sa.Column("scope", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_storage")),
    )
    op.create_index(op.f("ix_storage_owner"), "storage", ["owner"])
    op.add_column("tenants", sa.Column("stored_bytes", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("sessions", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Forget the counts and the limits."""
    op.drop_column("tenants", "sessions")
    op.drop_column("tenants", "stored_bytes")
    op.drop_table("storage")
