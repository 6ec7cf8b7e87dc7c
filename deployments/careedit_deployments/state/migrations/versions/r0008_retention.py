"""A tenant may have its data kept for other times than the configuration says; an assignment belongs to a tenant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Assignments that exist have no owner; they end as the configuration says."""
    op.add_column("tenants", sa.Column("retention", sa.JSON(), nullable=True))
    op.add_column("assignments", sa.Column("owner", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_assignments_owner"), "assignments", ["owner"])
    op.create_index(op.f("ix_assignments_created"), "assignments", ["created"])


def downgrade() -> None:
    """Forget the columns."""
    op.drop_index(op.f("ix_assignments_created"), "assignments")
    op.drop_index(op.f("ix_assignments_owner"), "assignments")
    op.drop_column("assignments", "owner")
    op.drop_column("tenants", "retention")
