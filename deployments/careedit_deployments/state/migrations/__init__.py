"""Migrations of the tables, which Alembic runs when a server starts. Processes that start together wait for each other."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text

from careedit_deployments.errors import UnavailableError
from careedit_deployments.state.database import Database

LOCK = 0x63617265
"""Number of PostgreSQL's advisory lock ("care")."""


def config_for(connection: Connection) -> Config:
    """Alembic's configuration for an open connection."""
    config = Config()
    config.set_main_option("script_location", "careedit_deployments:state/migrations")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite's transaction has locked the file already
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
    command.upgrade(config_for(connection), "head")


async def migrate(database: Database) -> None:
    """Migrate the tables to this version, in one transaction. Raises `UnavailableError`, also for a newer database."""
    try:
        async with database.write() as connection:
            await connection.run_sync(_upgrade)
    except CommandError as error:
        raise UnavailableError(
            f"The database was made by a newer careedit ({error}); install that version, or use another database."
        ) from error
