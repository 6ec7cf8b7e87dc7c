"""The store in SQLite; the cases are in tests/helpers, and run on PostgreSQL in tests/integration/state."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import policy_cases
import retention_cases
import store_cases
import tenant_cases
from careedit.errors import InputError
from careedit_deployments.config import StateConfig
from careedit_deployments.errors import UnavailableError
from careedit_deployments.state import database
from careedit_deployments.state.records import id_time, new_id
from careedit_deployments.state.store import open_store
from state_records import a_job


@pytest.mark.parametrize(
    "case",
    [*store_cases.CASES, *tenant_cases.CASES, *retention_cases.CASES, *policy_cases.CASES],
    ids=lambda case: case.__name__,
)
def test_sqlite(case: Any, with_store: Any, clock: Any) -> None:
    with_store(lambda store: case(store, clock))


def test_ids_sort_by_age_and_tell_it() -> None:
    first, second = new_id("job"), new_id("job")
    assert first != second
    assert id_time(first) <= id_time(second)
    assert id_time("job_x") == 0


def test_the_file_is_set_up_for_many_processes_and_for_real_deletion(with_store: Any, tmp_path: Path) -> None:
    async def pragmas(store: Any) -> list[object]:
        async with store._database.read() as connection:
            names = ("journal_mode", "foreign_keys", "secure_delete")
            return [(await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in names]

    assert with_store(pragmas) == ["wal", 1, 1]


def test_a_rewritten_file_has_no_copies_of_deleted_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite may leave a copy of a row in the unused part of a page from which it moved the row, and does not overwrite it."""
    path = tmp_path / "careedit.db"

    def fill(seed: int) -> None:
        path.unlink(missing_ok=True)
        chance, connection = random.Random(seed), sqlite3.connect(path)
        database._set_up_sqlite(connection, None)
        connection.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, who TEXT, words TEXT)")
        connection.execute("BEGIN")
        for i in range(300):
            who, name = "SECRET" if chance.random() < 0.3 else "other", f"{i:05}"
            row = (name, who, who + "x" * chance.randint(0, 300))
            connection.execute("INSERT INTO rows VALUES (?, ?, ?)", row)
            if chance.random() < 0.3:
                connection.execute(
                    "UPDATE rows SET words = ? WHERE id = ?", (who + "y" * chance.randint(0, 3000), name)
                )
        connection.execute("COMMIT")
        connection.execute("DELETE FROM rows WHERE who = 'SECRET'")
        connection.close()

    def copies() -> int:
        return sum(file.read_bytes().count(b"SECRET") for file in tmp_path.iterdir())

    async def scrub(*, rewrite: bool) -> bool:
        one = database.Database(f"sqlite+aiosqlite:///{path}")
        done = await one.scrub(rewrite=rewrite)
        await one.close()
        return done

    for seed in range(50):
        fill(seed)
        assert asyncio.run(scrub(rewrite=False))
        if copies():
            break
    assert copies(), "else this proves nothing"
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert not asyncio.run(scrub(rewrite=True)), "another one writes"
    assert asyncio.run(scrub(rewrite=True))
    assert copies() == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sqlite+aiosqlite://", "in memory"),
        ("nothing", "cannot be used"),
        ("oracle+nothing://me:secret@host/x", "cannot be used"),
        ("sqlite:///x.db", "cannot be used"),
    ],
)
def test_an_address_that_is_none_is_said_in_a_sentence_without_its_password(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        asyncio.run(open_store(StateConfig(database=address)))
    assert "secret" not in str(caught.value)


def test_only_the_user_who_makes_a_database_can_read_it(tmp_path: Path) -> None:
    async def write() -> None:
        store = await open_store(StateConfig(database=f"sqlite+aiosqlite:///{tmp_path}/state/careedit.db"))
        await store.jobs.add(a_job())
        made = [tmp_path / "state", *(tmp_path / "state").iterdir()]
        assert len(made) == 4, "a folder with the database, its log and their shared memory"
        assert [path for path in made if path.stat().st_mode & 0o077] == []
        await store.close()

    before = os.umask(0o022)
    try:
        asyncio.run(write())
    finally:
        os.umask(before)


def test_a_database_that_does_not_answer_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "careedit.db").write_bytes(b"This is no database, but a long enough text to be read as one." * 20)
    with pytest.raises(UnavailableError, match="does not answer"):
        asyncio.run(open_store(StateConfig(database=f"sqlite+aiosqlite:///{tmp_path}/careedit.db")))


def test_a_newer_database_is_refused(with_store: Any, state: StateConfig) -> None:
    async def ping(store: Any) -> None:
        await store.ping()

    with_store(ping)
    with sqlite3.connect(state.database.removeprefix("sqlite+aiosqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(UnavailableError, match="newer careedit"):
        with_store(ping)


SLOW = """UPDATE jobs SET last_event = (
    WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 1000000) SELECT max(n) FROM count
) RETURNING id"""


def test_whoever_is_cancelled_in_the_middle_of_a_write_locks_nobody_out(
    with_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 5.0)

    async def work(store: Any) -> None:
        job = await store.jobs.add(a_job())
        began = asyncio.Event()

        async def write() -> None:
            async with store._database.write() as connection:
                began.set()
                await connection.exec_driver_sql(SLOW)

        writing = asyncio.create_task(write())
        await began.wait()
        await asyncio.sleep(0.05)
        writing.cancel()
        (end,) = await asyncio.gather(writing, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError)  # its traceback still holds the statement
        assert (await store.jobs.claim("w", lease_s=9.0, attempts=3)).id == job.id
        assert (await store.jobs.get(job.id)).last_event == 2

    with_store(work)
