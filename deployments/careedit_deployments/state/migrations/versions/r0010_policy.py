"""Tenants may have a policy, edits say what they may be used for, and the cost of a tenant's day is counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the counts. Edits that exist say nothing; those of tenants are left out of exports from now on."""
    op.add_column("tenants", sa.Column("policy", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("edits", sa.Column("purposes", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "usage",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("evaluations", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_usage")),
    )


def downgrade() -> None:
    """Forget the columns and the counts."""
    op.drop_table("usage")
    op.drop_column("edits", "purposes")
    op.drop_column("tenants", "policy")
