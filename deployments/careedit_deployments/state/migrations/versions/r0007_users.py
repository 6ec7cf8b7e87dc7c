"""Tenants may have the names of their users stored in clear; a result with an address belongs to a user."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Names that are stored already stay as they are until their rows expire."""
    op.add_column("tenants", sa.Column("clear_names", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("storage", sa.Column("user", sa.Text(), nullable=True))


def downgrade() -> None:
    """Forget the columns."""
    op.drop_column("storage", "user")
    op.drop_column("tenants", "clear_names")
