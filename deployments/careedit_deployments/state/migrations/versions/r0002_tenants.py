"""Tenants stand above API keys: each key becomes a tenant with one key that may do everything.

The tenant gets the id of its key. So jobs, sessions, edits and feedback keep their owner, and users keep their arm.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LIMITS = ("requests_per_minute", "concurrent_requests")


def upgrade() -> None:
    """Make one tenant per key; it takes over the limits of the key."""
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("concurrent_requests", sa.Integer(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.execute(
        "INSERT INTO tenants (id, name, requests_per_minute, concurrent_requests, created) "
        "SELECT id, name, requests_per_minute, concurrent_requests, created FROM keys"
    )
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("tenant", sa.String(length=64), nullable=True))
        keys.add_column(sa.Column("scopes", sa.JSON(), nullable=True))
        keys.add_column(sa.Column("expires", sa.Double(), nullable=True))
        keys.add_column(sa.Column("used", sa.Double(), nullable=True))
        for limit in LIMITS:
            keys.drop_column(limit)
    op.execute("""UPDATE keys SET tenant = id, scopes = '["edit", "read", "admin"]'""")
    with op.batch_alter_table("keys") as keys:
        keys.alter_column("tenant", existing_type=sa.String(length=64), nullable=False)
        keys.alter_column("scopes", existing_type=sa.JSON(), nullable=False)
        keys.create_foreign_key(op.f("fk_keys_tenant"), "tenants", ["tenant"], ["id"])
    op.create_index(op.f("ix_keys_tenant"), "keys", ["tenant"])
    # Not a batch: SQLite would copy the table and drop the old one, and with its rows their events.
    op.add_column("jobs", sa.Column("key", sa.String(length=64), nullable=True))
    op.execute("UPDATE jobs SET key = owner WHERE owner IN (SELECT id FROM keys)")
    op.add_column("edits", sa.Column("evidence", sa.Boolean(), nullable=False, server_default=sa.true()))


def downgrade() -> None:
    """Give each key the limits of its tenant."""
    op.drop_column("edits", "evidence")
    op.drop_column("jobs", "key")
    op.drop_index(op.f("ix_keys_tenant"), "keys")
    with op.batch_alter_table("keys") as keys:
        keys.drop_constraint(op.f("fk_keys_tenant"), type_="foreignkey")
        for limit in LIMITS:
            keys.add_column(sa.Column(limit, sa.Integer(), nullable=True))
    for limit in LIMITS:
        op.execute(f"UPDATE keys SET {limit} = (SELECT {limit} FROM tenants WHERE tenants.id = keys.tenant)")
    with op.batch_alter_table("keys") as keys:
        for column in ("tenant", "scopes", "expires", "used"):
            keys.drop_column(column)
    op.drop_table("tenants")
