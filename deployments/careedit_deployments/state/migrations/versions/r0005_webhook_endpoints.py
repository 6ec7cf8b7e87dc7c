"""Tenants register webhook endpoints, each with its own secret; a message has an owner and can be sent again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the endpoints. Messages that exist are signed with the server's key, as before."""
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text(), nullable=True),
        sa.Column("old_until", sa.Double(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
        sa.UniqueConstraint("owner", "url", name=op.f("uq_webhook_endpoints_owner_url")),
    )
    op.add_column("webhooks", sa.Column("owner", sa.String(length=64), nullable=False, server_default="anonymous"))
    op.add_column("webhooks", sa.Column("endpoint", sa.String(length=64), nullable=True))
    op.add_column("webhooks", sa.Column("resent_after", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("webhooks", sa.Column("attempted", sa.Double(), nullable=True))
    op.execute("UPDATE webhooks SET owner = (SELECT owner FROM jobs WHERE jobs.id = webhooks.job)")


def downgrade() -> None:
    """Remove the endpoints."""
    for column in ("attempted", "resent_after", "endpoint", "owner"):
        op.drop_column("webhooks", column)
    op.drop_table("webhook_endpoints")
