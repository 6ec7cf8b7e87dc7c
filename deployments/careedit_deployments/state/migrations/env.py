"""Entry point for Alembic: runs the revisions over the connection in the configuration."""

from __future__ import annotations

from alembic import context

from careedit_deployments.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    render_as_batch=True,  # SQLite changes a table by copying it
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
