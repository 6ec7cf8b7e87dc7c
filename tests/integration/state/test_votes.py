"""Votes in PostgreSQL: raters at once, also in the database of a server, and a database that goes away."""

import asyncio
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from careedit.cli.main import main
from careedit.errors import InputError
from careedit_deployments.config import StateConfig
from careedit_deployments.state.store import open_store
from careedit_eval.voting import VoteTable
from voters import cast, collecting, painted


def test_raters_on_two_machines_share_one_table_which_is_next_to_a_servers(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def server() -> None:
        await (await open_store(StateConfig(database=database))).close()

    asyncio.run(server())
    run = painted(tmp_path, n=8)

    def rate(rater: str) -> int:
        done = 0
        with collecting(run, database, seed=random.getrandbits(32)) as page:
            while (pair := page.pair(rater)["pair"]) is not None and done < 12:
                page.post("/api/vote", rater=rater, pair=pair, verdict=page.judge(pair))
                done += 1
        return done

    with ThreadPoolExecutor(3) as raters:
        assert list(raters.map(rate, ("ann", "bob", "cem"))) == [12] * 3
    asyncio.run(server())  # its migrations do not mind the table
    address = database.replace("+asyncpg", "")
    assert main(["eval", "votes", address, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["rater"]: one["votes"] + one["attention"] for one in found["raters"]} == {
        "ann": 12,
        "bob": 12,
        "cem": 12,
    }
    assert sum(one["missed"] for one in found["raters"]) == 0
    assert [one["name"] for one in found["sets"]] == ["sigma", "omega", "zeta"]
    with closing(VoteTable(address)) as table:
        seen = Counter((vote.sample, frozenset((vote.left_set, vote.right_set))) for vote in table.votes())
    assert len(seen) >= 20, "raters at the same time see different pairs; random pairs would be 18 of 24"


def test_of_many_verdicts_at_once_one_is_stored(database: str) -> None:
    with closing(VoteTable(database)) as table:
        table.offer(cast("a", "b", None, at=None, id="1" * 32))
        with ThreadPoolExecutor(8) as pool:
            new = list(pool.map(lambda at: table.record("1" * 32, "ann", "left", at), range(16)))
        assert sum(new) == 1
        with pytest.raises(InputError, match="has a vote already"):
            table.record("1" * 32, "ann", "right", 99.0)
        (vote,) = table.votes()
        assert vote.verdict == "left" and vote.at == float(new.index(True))


def test_a_database_that_goes_away_is_a_sentence_and_the_vote_is_not_confirmed(
    database: str, postgres: str, tmp_path: Path
) -> None:
    run = painted(tmp_path)
    name = database.rpartition("/")[2]

    async def rename(before: str, after: str) -> None:
        connection = await asyncpg.connect(postgres)
        await connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{before}'")
        await connection.execute(f"ALTER DATABASE {before} RENAME TO {after}")
        await connection.close()

    with collecting(run, database) as page:
        pair = page.pair()["pair"]
        asyncio.run(rename(name, f"{name}_gone"))
        body = {"rater": "ann", "pair": pair, "verdict": "left"}
        status, _, data = page.ask("/api/vote", body)
        assert status == 503 and "The database of votes does not answer" in json.loads(data)["error"]
        assert "careedit@" not in str(data)
        asyncio.run(rename(f"{name}_gone", name))
        assert page.post("/api/vote", **body) == {"stored": True}
    with closing(VoteTable(database)) as table:
        assert [vote.verdict for vote in table.votes()] == ["left"]


def test_a_database_that_is_not_there_is_refused(database: str) -> None:
    with pytest.raises(InputError, match="cannot be opened") as caught:
        VoteTable(f"{database}_missing")
    assert "\n" not in str(caught.value)
    with closing(VoteTable(database)) as table:
        table.close()  # a closed table opens a new connection
        assert table.votes() == []
