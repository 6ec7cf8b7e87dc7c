"""The table of votes, in a SQLite file or in PostgreSQL. A vote is on the disk when `record` returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable
from tenacity import Retrying, stop_after_attempt

from careedit.errors import InputError
from careedit_eval.errors import VotesError, reason_of
from careedit_eval.voting.votes import MAX_RATER, Verdict, Vote

WAIT_S = 30
"""Seconds that a writer of a SQLite file waits for another writer."""
CONNECT_S = 10
"""Seconds that a connection to PostgreSQL may take."""
TABLE = Table(
    "votes",
    MetaData(),
    Column("id", String(32), primary_key=True),
    Column("run", Text, nullable=False, index=True),
    Column("rater", String(MAX_RATER), nullable=False),
    Column("benchmark", Text, nullable=False),
    Column("sample", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("image", Text, nullable=False),
    Column("left_set", Text, nullable=False),
    Column("right_set", Text, nullable=False),
    Column("left_sha256", String(64), nullable=False),
    Column("right_sha256", String(64), nullable=False),
    Column("attention", String(16)),
    Column("offered", Double, nullable=False),
    Column("verdict", String(16)),
    Column("at", Double),
)
"""One row per `Vote`."""


class VoteTable:
    """The votes in one database. Every thread and every process may use its own or share one.

    Methods raise `VotesError` if the database does not answer.
    """

    def __init__(self, address: str, *, create: bool = True) -> None:
        """Open the database, and make the table if it is missing and `create` is set. Raises `InputError`."""
        self._engine = _engine(address, create=create)
        self.address = self._engine.url.render_as_string(hide_password=True)
        """The address of the database, without a password."""
        try:
            self._open(create)
        except InputError:
            self._engine.dispose()
            raise

    def _open(self, create: bool) -> None:
        try:
            if create:
                # If two processes make the table at the same time, one of them is refused and finds it afterwards.
                for attempt in Retrying(stop=stop_after_attempt(2), reraise=True):
                    with attempt, self._engine.begin() as connection:
                        connection.execute(CreateTable(TABLE, if_not_exists=True))
            shape = inspect(self._engine)
            columns = [one["name"] for one in shape.get_columns(TABLE.name)] if shape.has_table(TABLE.name) else None
        except SQLAlchemyError as error:
            raise InputError(
                f"The database {self.address} cannot be opened ({_reason(error)}); check the address, or give one such as "
                "sqlite:///votes.db or postgresql://user@host/name."
            ) from error
        if columns is None:
            raise InputError(f"The database {self.address} has no votes; collect some with `careedit eval vote`.")
        if columns != [column.name for column in TABLE.columns]:
            raise InputError(
                f"The table 'votes' in {self.address} is of another program or version; give another database."
            )

    def offer(self, vote: Vote) -> None:
        """Store a pair that a rater is about to see."""
        with self._work() as connection:
            connection.execute(TABLE.insert().values(asdict(vote)))

    def record(self, vote_id: str, rater: str, verdict: Verdict, at: float) -> bool:
        """Store the rater's verdict on a pair; returns whether it is new.

        The same verdict again changes nothing. Raises `InputError` for another one, and for a pair that the rater was not shown.
        """
        own = (TABLE.c.id == vote_id) & (TABLE.c.rater == rater)
        with self._work() as connection:
            statement = update(TABLE).where(own, TABLE.c.verdict.is_(None)).values(verdict=verdict, at=at)
            if connection.execute(statement).rowcount:
                return True
            known = connection.execute(select(TABLE.c.verdict).where(own)).one_or_none()
        if known is None:
            raise InputError("This pair was not shown to this rater; load the page again.")
        if known.verdict != verdict:
            raise InputError("This pair has a vote already, and it stays; go on to the next pair.")
        return False

    def find(self, vote_id: str) -> Vote | None:
        """The pair with this id, or None."""
        with self._work() as connection:
            row = connection.execute(select(TABLE).where(TABLE.c.id == vote_id)).one_or_none()
        return None if row is None else Vote(**row._mapping)

    def votes(self, run: str | None = None) -> list[Vote]:
        """All rows, or those of one run, in the order in which they were shown."""
        query = select(TABLE).order_by(TABLE.c.offered, TABLE.c.id)
        with self._work() as connection:
            rows = connection.execute(query if run is None else query.where(TABLE.c.run == run))
            return [Vote(**row._mapping) for row in rows]

    def replace(self, votes: Sequence[Vote]) -> None:
        """Store votes; a row with the same id is replaced."""
        with self._work() as connection:
            for vote in votes:
                connection.execute(delete(TABLE).where(TABLE.c.id == vote.id))
                connection.execute(TABLE.insert().values(asdict(vote)))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _work(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise VotesError(
                f"The database of votes does not answer ({_reason(error)}); check it and try again."
            ) from error


def _engine(address: str, *, create: bool) -> Engine:
    """An engine with careedit's drivers; a plain path is a SQLite file. Raises `InputError`."""
    try:
        url = make_url(address if "://" in address else f"sqlite:///{address}")
        kind = url.get_backend_name()
        if kind == "postgresql":
            return create_engine(
                url.set(drivername="postgresql+psycopg2"),
                pool_pre_ping=True,
                connect_args={"connect_timeout": CONNECT_S},
            )
        if kind == "sqlite" and url.database not in (None, "", ":memory:"):
            if not create and not Path(str(url.database)).is_file():
                raise InputError(
                    f"The file of votes {url.database!r} does not exist; check the path, or collect votes with `careedit eval vote`."
                )
            options: dict[str, Any] = {"timeout": WAIT_S}
            return create_engine(url.set(drivername="sqlite"), connect_args=options)
    except (SQLAlchemyError, ImportError) as error:
        raise InputError(f"The address of the database of votes cannot be used ({_reason(error)}).") from error
    raise InputError(
        "Votes are stored in a SQLite file or in PostgreSQL; give an address such as sqlite:///votes.db or "
        "postgresql://user@host/name."
    )


def _reason(error: Exception) -> str:
    """What the driver says, without the statement and its values."""
    return reason_of(getattr(error, "orig", None) or error)
