"""The queue of jobs is shared fairly: what a job costs, and what each owner's jobs have taken."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the costs. The cost of jobs that are queued already is not known; it counts as one evaluation."""
    op.add_column("jobs", sa.Column("cost", sa.Double(), nullable=False, server_default="1"))
    op.create_table(
        "shares",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("start", sa.Double(), nullable=False),
        sa.Column("served", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_shares")),
    )
    op.create_index(op.f("ix_shares_start"), "shares", ["start"])


def downgrade() -> None:
    """Forget the costs."""
    op.drop_table("shares")
    op.drop_column("jobs", "cost")
