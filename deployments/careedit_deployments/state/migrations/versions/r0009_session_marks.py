"""Sessions keep the Content Credentials of their source, and turns the marks of the content policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Sessions and turns that exist have neither."""
    op.add_column("sessions", sa.Column("ingredient", sa.Text(), nullable=True))
    op.add_column("turns", sa.Column("marks", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Forget the columns."""
    op.drop_column("turns", "marks")
    op.drop_column("sessions", "ingredient")
