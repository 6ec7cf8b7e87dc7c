"""The blind page: which pairs raters see, that a vote is one vote, and that no answer names a set."""

import json
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from careedit.cli.main import main
from careedit_eval.runs import Run
from careedit_eval.voting import VoteTable
from careedit_eval.voting.ballots import EVERY
from scripted_eval import arm, finished, suite
from voters import SETS, Page, collecting, painted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose stored images name their sets, as other programs' files may."""
    made = painted(tmp_path_factory.mktemp("evals"))
    for line in made.table.edits:
        file = made.store / str(line.picture)
        about = PngInfo()
        about.add_text("model", line.arm)
        with Image.open(file) as picture:
            picture.save(file, pnginfo=about)
    return made


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'votes.db'}"


@pytest.fixture
def page(run: Run, database: str):
    with collecting(run, database) as found:
        yield found


def stored(database: str) -> list:
    with closing(VoteTable(database)) as table:
        return table.votes()


def voted(page: Page, rater: str = "ann", limit: int = 100) -> int:
    """The rater votes until no pair is left."""
    for number in range(limit):
        found = page.pair(rater)
        if found["pair"] is None:
            return number
        page.post("/api/vote", rater=rater, pair=found["pair"], verdict=page.judge(found["pair"]))
    return limit


def test_a_rater_sees_every_pair_once_and_no_answer_names_a_set(run: Run, page: Page, database: str) -> None:
    for path in ("/", "/vote.js", "/vote.css", "/picture.png?pair=x&place=left", "/picture.png", "/api/pair"):
        page.ask(path)
    assert voted(page) > 18
    votes = [vote for vote in stored(database) if vote.attention is None]
    pairs = {(vote.sample, *sorted((vote.left_set, vote.right_set))) for vote in votes}
    assert len(pairs) == len(votes) == 6 * 3
    for vote in votes:
        winner = vote.left_set if vote.verdict == "left" else vote.right_set
        assert SETS.index(winner) == max(SETS.index(vote.left_set), SETS.index(vote.right_set)), "brighter is better"
    sides = [SETS.index(vote.left_set) < SETS.index(vote.right_set) for vote in votes]
    assert 0 < sum(sides) < len(sides), "the sides are random"
    identities = {facts.name: facts.identity_sha256 for facts in run.record.sets}
    assert {(vote.left_set, vote.left_sha256) for vote in votes} <= set(identities.items())
    secret = [*SETS, *identities.values(), run.record.id, *(f"s{i:03}" for i in range(6))]
    assert [name for name in secret if name.encode() in page.seen] == []


def test_a_pair_shows_its_edits_and_the_source(run: Run, page: Page, database: str) -> None:
    found = page.pair()
    (vote,) = stored(database)
    line = run.table.edits_of("drawn", vote.left_set)[vote.sample, 0]
    with Image.open(run.store / str(line.picture)) as picture:
        assert (page.picture(found["pair"], "left") == np.asarray(picture)).all()
    assert found["instructions"] == [line.instruction] and found["references"] == 0
    assert page.picture(found["pair"], "source").mean() == 10 * (int(vote.sample[1:]) // 2)


def test_a_verdict_that_is_sent_twice_is_one_vote_and_stays(page: Page, database: str) -> None:
    pair = page.pair()["pair"]
    for _ in range(3):
        page.post("/api/vote", rater="ann", pair=pair, verdict="tie")
    for fields in ({"rater": "ann", "verdict": "left"}, {"rater": "bob", "verdict": "tie"}):
        status, _, data = page.ask("/api/vote", {"pair": pair, **fields})
        assert status == 400 and ("has a vote already" in str(data) or "not shown to this rater" in str(data))
    (vote,) = stored(database)
    assert (vote.verdict, vote.rater) == ("tie", "ann") and vote.at >= vote.offered
    assert page.pair()["votes"] == 1


def test_an_open_pair_comes_again_even_from_a_new_server_and_raters_get_different_ones(
    run: Run, page: Page, database: str
) -> None:
    mine, other = page.pair("ann")["pair"], page.pair("bob")["pair"]
    left = page.picture(mine, "left")
    assert page.pair("ann")["pair"] == mine and page.pair(" ann ")["pair"] == mine
    a, b = stored(database)
    assert (a.id, b.id) == (mine, other)
    assert {a.left_set, a.right_set} != {b.left_set, b.right_set} and a.image != b.image
    with collecting(run, database, seed=9) as later:
        assert later.pair("ann")["pair"] == mine and (later.picture(mine, "left") == left).all()
        later.post("/api/vote", rater="ann", pair=mine, verdict="right")
    assert [vote.verdict for vote in stored(database)] == ["right", None]


def test_one_of_eight_pairs_checks_attention_and_who_looks_misses_none(page: Page, database: str) -> None:
    for rater in ("ann", "bob"):
        assert voted(page, rater, 2 * EVERY) == 2 * EVERY
        mine = [vote for vote in stored(database) if vote.rater == rater]
        checks = [[vote.attention for vote in mine[start:][:EVERY] if vote.attention] for start in (0, EVERY)]
        assert [len(part) for part in checks] == [1, 1]
    checks = [vote for vote in stored(database) if vote.attention]
    assert all(vote.left_set == vote.right_set and not vote.missed for vote in checks)
    assert [vote.attention == "same" for vote in checks] == [True, False] * 2


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        ("/api/pair", {"rater": "x" * 10_240}, {}, 400, "1 to 64 printable characters"),
        ("/api/pair", {"rater": "a\nb"}, {}, 400, "1 to 64 printable characters"),
        ("/api/pair", {"rater": "\ud800"}, {}, 400, "1 to 64 printable characters"),
        ("/api/pair", {"rater": ["ann"]}, {}, 400, "1 to 64 printable characters"),
        ("/api/pair", {}, {}, 400, "lacks 'rater'"),
        ("/api/pair", b"[" * 30_000, {}, 400, "not a JSON object"),
        ("/api/pair", b"{" + b" " * 70_000 + b"}", {}, 400, "not a JSON object of at most 65,536 bytes"),
        ("/api/pair", {"rater": "ann"}, {"Content-Type": "text/plain"}, 400, "send application/json"),
        ("/api/pair", {"rater": "ann"}, {"Content-Length": "9" * 5000}, 400, "not a JSON object"),
        ("/api/pair", {"rater": "ann"}, {"Origin": "https://evil.example"}, 403, "Only the voting page itself"),
        ("/api/pair", {"rater": "ann"}, {"host": "rebound.example"}, 403, "answers only under localhost"),
        ("/api/vote", {"rater": "ann", "pair": "x", "verdict": "left"}, {}, 400, "not shown to this rater"),
        ("/api/vote", {"rater": "ann", "pair": "x", "verdict": "best"}, {}, 400, "'best' is not a verdict"),
        ("/api/other", {}, {}, 404, "takes POST /api/pair"),
    ],
    ids=range(14),
)
def test_what_is_wrong_is_one_sentence_and_stores_nothing(page, database, path, body, headers, status, said) -> None:
    found, _, data = page.ask(path, body, **headers)
    sentence = json.loads(data)["error"]
    assert found == status and said in sentence and len(sentence) < 200
    assert stored(database) == []


@pytest.mark.parametrize("place", ["__class__", "reference-0", "target-9", "", "../run.json"])
def test_only_the_images_of_a_pair_are_served(page: Page, place: str) -> None:
    pair = page.pair()["pair"]
    assert page.ask(f"/picture.png?pair={pair}&place={place}")[0] in (400, 404)


def test_pairs_without_a_readable_image_or_with_equal_edits_are_left_out(tmp_path: Path, database: str) -> None:
    made = finished(suite(arm("a", by=20), arm("b", by=70, fail="s001"), arm("c", by=20), n=4), tmp_path)
    gone = made.table.edits_of("drawn", "b")["s002", 0]
    (made.store / str(gone.picture)).unlink()
    with collecting(made, database) as page:
        voted(page)
    real = [vote for vote in stored(database) if vote.attention is None]
    shown = {(vote.sample, *sorted((vote.left_set, vote.right_set))) for vote in real}
    assert shown == {(sample, *pair) for sample in ("s000", "s003") for pair in (("a", "b"), ("b", "c"))}


def test_edits_of_the_first_seed_are_compared(tmp_path: Path, database: str) -> None:
    made = painted(tmp_path, n=2, seeds=(5, 3))
    with collecting(made, database) as page:
        voted(page)
    assert {vote.seed for vote in stored(database)} == {5}


def test_a_later_turn_shows_the_first_source_and_all_instructions(tmp_path: Path, database: str) -> None:
    made = painted(tmp_path, n=4, bench={"turns": 2})
    with collecting(made, database) as page:
        for _ in range(10):
            found = page.pair()
            vote = stored(database)[-1]
            turn = int(vote.sample[1:]) % 2
            assert len(found["instructions"]) == turn + 1 and found["instructions"][-1] == f"make it {vote.sample[3]}"
            page.post("/api/vote", rater="ann", pair=found["pair"], verdict="tie")


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line that the command says when it refuses."""
    assert main(["eval", *command]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = [line for line in said.err.splitlines() if line.strip()]
    return line


def test_the_command_refuses_what_it_cannot_use(run: Run, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = finished(suite(arm("a"), n=2), tmp_path / "alone")
    assert "A vote compares two sets or more" in refused(capsys, "vote", str(alone.folder))
    failed = finished(suite(arm("a", fail="s000"), arm("b"), n=1), tmp_path / "failed")
    assert "has no sample that two of a, b edited" in refused(capsys, "vote", str(failed.folder))
    folder = str(run.folder)
    assert "has no set 'x'; its sets and rows are zeta" in refused(
        capsys, "vote", folder, "--set", "x", "--set", "zeta"
    )
    assert "neither a folder nor a run" in refused(capsys, "vote", "20261109-x")
    (tmp_path / "text.db").write_text("not a database, but long enough to be seen as one by its length" * 20)
    for address, why in (
        ("sqlite:///text.db", "file is not a database"),
        (f"sqlite:///{tmp_path}/no/votes.db", "unable to open"),
        ("sqlite://", "give an address such as"),
        ("mysql://host/name", "cannot be used|give an address such as"),
        ("postgresql://ann:secret@127.0.0.1:9/votes", "cannot be opened (connection"),
    ):
        said = refused(capsys, "vote", folder, "--database", address)
        assert any(part in said for part in why.split("|")) and "secret" not in said, said
    assert "are two databases of votes" in refused(capsys, "votes", "text.db", "--database", "other.db")
    assert "--everyone is about the file" in refused(capsys, "votes", folder, "--everyone")
    assert "or collect votes with `careedit eval vote`" in refused(capsys, "votes", "none.db")
    files = fsspec.filesystem("memory")
    files.put(str(run.folder.parents[1]), "/voted/evals", recursive=True)
    remote = f"memory://voted/evals/runs/{run.record.id}"
    assert "need a database of their own; give one with --database" in refused(capsys, "vote", remote)
    assert "is a function that the run names" in refused(capsys, "vote", remote, "--database", "votes.db")
    assert not (tmp_path / "eval-runs").exists()


def with_rows(made: Run, n: int) -> None:
    """Let the benchmark of a run have `n` rows from now on."""
    data = json.loads((made.folder / "run.json").read_text())
    data["suite"]["benchmarks"][0]["options"]["n"] = n
    (made.folder / "run.json").write_text(json.dumps(data))


def test_a_benchmark_that_is_not_here_is_named(tmp_path: Path, capsys) -> None:
    made = painted(tmp_path)
    with_rows(made, 0)
    assert "The rows of the benchmark cannot be read here" in refused(capsys, "vote", str(made.folder))


def test_samples_that_are_gone_are_left_out_even_where_a_rater_had_one_open(tmp_path: Path, database: str) -> None:
    made = painted(tmp_path)
    with collecting(made, database, seed=1) as page:
        for rater in ("ann", "bob", "cem", "dan"):
            page.pair(rater)
    with_rows(made, 2)
    with collecting(made, database) as page:
        for rater in ("ann", "bob", "cem", "dan"):
            voted(page, rater)
    votes = stored(database)
    assert {vote.sample for vote in votes if vote.verdict is not None} == {"s000", "s001"}
    assert {vote.sample for vote in votes if vote.verdict is None} - {"s000", "s001"}
