"""What votes say: against plain references and simulated raters; connectivity, attention, traffic, export."""

import json
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from careedit.cli.main import main
from careedit.errors import InputError
from careedit_eval.stats import pair_information
from careedit_eval.voting import VoteTable, analyse_votes
from voters import cast, painted


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careedit_eval.stats.davidson.DRAWS", 60)


STRENGTHS = {"a": 0.8, "b": 0.0, "c": -0.6}


def simulated(
    rng: np.random.Generator, *, images: int = 60, each: int = 3, spread: float = 0.7, ties: float = 0.8
) -> list:
    """Votes of raters by Davidson's model. Sets are better or worse on an image, so its votes are not independent."""
    votes = []
    for image in range(images):
        own = {name: value + rng.normal(0, spread) for name, value in STRENGTHS.items()}
        for left, right in (rng.permutation(list(STRENGTHS))[:2] for _ in range(each)):
            half = (own[left] - own[right]) / 2
            likely = np.array([np.exp(half), np.exp(-half), ties])
            verdict = rng.choice(["left", "right", "tie"], p=likely / likely.sum())
            votes.append(cast(str(left), str(right), str(verdict), f"i{image}", f"r{rng.integers(3)}"))
    return votes


def test_strengths_and_shares_are_those_of_a_plain_reference() -> None:
    votes = simulated(np.random.default_rng(1))
    votes = [
        replace(vote, verdict="both_bad") if i % 2 and vote.verdict == "tie" else vote for i, vote in enumerate(votes)
    ]
    report = analyse_votes(votes, against="b")

    def loss(unknown: np.ndarray) -> float:
        p = dict(zip("abc", np.exp([unknown[0], 0, unknown[1]]), strict=True))
        found = 0.0
        for vote in votes:
            one, other = p[vote.left_set], p[vote.right_set]
            middle = np.exp(unknown[2]) * np.sqrt(one * other)
            found -= np.log({"left": one, "right": other}.get(vote.verdict, middle) / (one + other + middle))
        return found

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).x
    assert {one.name: one.strength for one in report.sets} == pytest.approx(
        {"a": best[0], "b": 0.0, "c": best[1]}, abs=1e-3
    )
    for pair in report.pairs:
        both = [vote for vote in votes if {vote.left_set, vote.right_set} == {pair.a, pair.b}]
        won = Counter({"left": vote.left_set, "right": vote.right_set}.get(vote.verdict, "none") for vote in both)
        assert (pair.wins, pair.losses, pair.ties) == (won[pair.b], won[pair.a], won["none"])
        assert pair.share == pytest.approx((won[pair.b] + won["none"] / 2) / len(both))
        assert pair.interval.low < pair.share < pair.interval.high
    a = report.sets[0]
    own = [vote for vote in votes if "a" in (vote.left_set, vote.right_set)]
    assert a.both_bad == sum(vote.verdict == "both_bad" for vote in own) > 0 and a.votes == len(own)
    assert report.images == 60 and report.notes == ()


def test_intervals_hold_the_true_strengths_of_simulated_raters_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(3), []
    truth = {"a": 0.689, "c": -0.523}  # what 180,000 votes on 60,000 images say: images that differ bring sets closer
    for _ in range(20):
        found = {one.name: one.interval for one in analyse_votes(simulated(rng), "b").sets if one.name != "b"}
        held += [found[name].low <= value <= found[name].high for name, value in truth.items()]
    assert np.mean(held) >= 0.85


def test_the_information_of_a_pair_is_that_of_the_likelihoods_curvature() -> None:
    rng = np.random.default_rng(5)
    counts = np.triu(rng.integers(1, 9, (4, 4)), 1)[..., None] * rng.integers(1, 4, (1, 1, 3)).astype(float)
    counts[0, 3] = 0
    size, prior = 4, 2.0**-2

    def minus_log_posterior(unknown: np.ndarray) -> float:
        found = prior / 2 * (unknown**2).sum()
        for i, j in zip(*np.nonzero(counts.sum(axis=2)), strict=True):
            terms = np.array([unknown[j], unknown[4] + (unknown[i] + unknown[j]) / 2, unknown[i]])
            found -= (counts[i, j] * (terms - np.log(np.exp(terms).sum()))).sum()
        return float(found)

    best = minimize(minus_log_posterior, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    step = 1e-3 * np.eye(5)[:4]
    precision = np.array(
        [
            [
                sum(s * t * minus_log_posterior(best + s * a + t * b) for s in (1, -1) for t in (1, -1)) / 4e-6
                for b in step
            ]
            for a in step
        ]
    )
    found = pair_information(counts, np.zeros((size, size)))
    for i, j in ((0, 3), (1, 2)):
        likely = np.exp([best[j], best[4] + (best[i] + best[j]) / 2, best[i]])
        outcome = np.array([-0.5, 0, 0.5])
        share = likely / likely.sum()
        fisher = (share * outcome**2).sum() - (share * outcome).sum() ** 2
        difference = np.eye(size)[i] - np.eye(size)[j]
        more = precision + fisher * np.outer(difference, difference)
        gain = (np.linalg.slogdet(more)[1] - np.linalg.slogdet(precision)[1]) / 2
        assert found[i, j] == pytest.approx(gain, rel=1e-3) and found[j, i] == pytest.approx(gain, rel=1e-3)
    assert found[0, 3] == found[np.triu_indices(4, 1)].max(), "the pair without a verdict says most"


def test_a_clear_pair_says_less_than_a_close_one_and_a_pending_one_less_than_a_free_one() -> None:
    counts, pending = np.zeros((3, 3, 3)), np.zeros((3, 3))
    counts[0, 1, 2] = counts[0, 2, 0] = counts[0, 2, 2] = 10
    counts[0, 2] /= 2
    found = pair_information(counts, pending)
    assert found[0, 2] > found[0, 1]
    pending[0, 2] = 5
    assert pair_information(counts, pending)[0, 2] < found[0, 2]


def test_sets_that_no_vote_connects_are_named_and_ranked_apart() -> None:
    votes = [cast(x, y, verdict) for x, y in (("a", "b"), ("c", "d")) for verdict in ("left", "right", "left", "tie")]
    report = analyse_votes(votes)
    assert [(one.name, one.group) for one in report.sets] == [("a", 1), ("b", 1), ("c", 2), ("d", 2)]
    (warning,) = [line for line in report.notes if "not connected" in line]
    assert "(a, b; c, d)" in warning
    assert [one.strength == 0 for one in report.sets] == [True, False, True, False]
    joined = analyse_votes([*votes, cast("b", "c", "tie")])
    assert {one.group for one in joined.sets} == {1} and "connected" not in " ".join(joined.notes)


def test_a_set_that_only_won_is_first_and_its_distance_is_not_made_up() -> None:
    close = [
        cast("a", "b", verdict, f"i{i}") for i, verdict in enumerate(["left", "right", "left", "right", "tie"] * 4)
    ]
    report = analyse_votes([*close, *(cast("best", name, "left", "i1") for name in "ab"), cast("worst", "b", "right")])
    assert [(one.name, one.tier, one.strength is None) for one in report.sets] == [
        ("best", 1, True), ("a", 2, False), ("b", 2, False), ("worst", 3, True),
    ]  # fmt: skip
    assert any("best > (a, b) > worst" in line for line in report.notes)


def careless(rater: str, missed: int, checks: int, against: str = "a") -> list:
    """Votes of a rater who votes against a set, with attention pairs."""
    found = [cast(against, "b", "right", f"i{i}", rater) for i in range(10)]
    return found + [
        cast("a", "a", "left" if i < missed else "tie", f"i{i}", rater, attention="same") for i in range(checks)
    ]


@pytest.mark.parametrize(("missed", "checks", "excluded"), [(1, 1, False), (1, 3, False), (2, 8, False), (2, 7, True)])
def test_who_misses_two_and_over_a_quarter_of_the_attention_pairs_is_left_out(missed, checks, excluded) -> None:
    careful = [cast("a", "b", verdict, f"i{i}", "ann") for i, verdict in enumerate(["left", "left", "right"] * 5)]
    report = analyse_votes([*careful, *careless("bob", missed, checks)])
    (bob,) = [one for one in report.raters if one.rater == "bob"]
    assert (bob.missed, bob.attention, bob.excluded) == (missed, checks, excluded)
    assert (report.votes, report.left_out) == ((15, 10) if excluded else (25, 0))
    assert any("10 votes of bob are left out" in line for line in report.notes) == excluded


@pytest.mark.parametrize(
    ("attention", "right"),
    [("same", {"tie", "both_bad"}), ("left", {"left", "both_bad"}), ("right", {"right", "both_bad"})],
)
def test_the_right_answers_to_an_attention_pair(attention, right) -> None:
    verdicts = ("left", "right", "tie", "both_bad")
    assert {one for one in verdicts if not cast("a", "a", one, attention=attention).missed} == right


def filled(folder: Path, votes: list) -> str:
    """The address of a database with these votes."""
    address = f"sqlite:///{folder / 'votes.db'}"
    with closing(VoteTable(address)) as table:
        table.replace(votes)
    return address


def test_the_export_has_one_object_per_vote_that_counts(tmp_path: Path, capsys) -> None:
    good = cast("a", "b", "both_bad", "café", "ann", at=1790000000.25)
    offered = replace(cast("a", "b", "tie", "s9"), verdict=None, at=None)
    address = filled(tmp_path, [good, offered, *careless("bob", 3, 3)])
    to = tmp_path / "votes.jsonl"
    assert main(["eval", "votes", address, "--to", str(to)]) == 0 and "bob" in capsys.readouterr().out
    assert to.read_text("utf-8") == (
        '{"rater": "ann", "benchmark": "drawn", "sample": "café", "left": "a", "right": "b", "verdict": "both_bad", '
        '"at": "2026-09-21T14:13:20.250+00:00", "run": "run"}\n'
    )
    assert main(["eval", "votes", str(tmp_path / "votes.db"), "--to", str(to), "--everyone", "--json"]) == 0
    found = [json.loads(line) for line in to.read_text("utf-8").splitlines()]
    assert Counter(one["rater"] for one in found) == {"ann": 1, "bob": 10}
    shown = json.loads(capsys.readouterr().out)
    assert shown["votes"] == 1 and shown["left_out"] == 10 and shown["connected"] is True
    assert [(one["rater"], one["excluded"]) for one in shown["raters"]] == [("ann", False), ("bob", True)]


def traffic(path: Path, *said: dict) -> Path:
    """An export of `careedit ab export`, with edits of two users."""
    header = {
        "kind": "header", "version": 2, "since": 0.0, "assigned": {}, "events": [],
        "arms": {"a": {"expert_set": "tiny", "weight": 1}, "b": {"expert_set": "new", "weight": 1}},
    }  # fmt: skip
    edits = [
        {
            "kind": "edit", "id": f"e{i}", "unit": f"u{i // 4}", "arm": "ab"[i % 2], "dealt": True, "outcome": "made",
            "expert_set_sha256": "ab"[i % 2] * 64,
            "seconds": 1.0, "scores": None, "created": float(i),
        }
        for i in range(8)
    ]  # fmt: skip
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (header, *edits, *said)))
    return path


def said(first: int, second: int, winner: int | None, at: float = 9.0) -> dict:
    names = [f"e{first}", f"e{second}"]
    won = None if winner is None else f"e{winner}"
    return {"kind": "feedback", "edits": names, "winner": won, "rating": None, "created": at}


def test_the_votes_of_a_servers_users_are_in_the_same_table_and_analysis(tmp_path: Path, capsys) -> None:
    address = filled(tmp_path, [cast("a", "b", verdict, f"i{i}") for i, verdict in enumerate(["left", "right"] * 3)])
    rated = {"kind": "feedback", "edits": ["e0"], "winner": None, "rating": 5, "created": 9.0}
    file = traffic(tmp_path / "ab.jsonl", said(0, 1, 0), said(3, 2, 3), said(4, 5, None), said(0, 2, 0), rated)
    for _ in range(2):
        assert main(["eval", "votes", address, "--add", str(file), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["votes"] == 9, "two edits of one arm and a rating are not comparisons, and a vote counts once"
        ((pair),) = found["pairs"]
        assert (pair["a"], pair["benchmark"]) == ("a", "drawn, traffic")
        assert (pair["wins"], pair["ties"], pair["losses"], pair["images"]) == (4, 1, 4, 8)
    changed = traffic(tmp_path / "later.jsonl", said(0, 1, 1, 12.0))
    to = tmp_path / "votes.jsonl"
    assert main(["eval", "votes", address, "--add", str(changed), "--to", str(to)]) == 0
    lines = [json.loads(line) for line in to.read_text().splitlines()]
    (line,) = [one for one in lines if one["sample"] == "e0 e1"]
    assert (line["rater"], line["left"], line["right"], line["verdict"]) == ("u0", "a", "b", "right") and len(
        lines
    ) == 9


def test_a_run_reads_its_own_votes_and_one_name_for_two_sets_is_a_warning(tmp_path: Path, capsys) -> None:
    run = painted(tmp_path)
    mine = [cast("zeta", "omega", verdict, run=run.record.id) for verdict in ("left", "right")]
    filled(tmp_path, [*mine, cast("zeta", "omega", "left", run="other", left_sha256="9" * 64)])
    assert main(["eval", "votes", run.record.id, "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["votes"] == 2 and "different sets" not in " ".join(found["notes"])
    assert main(["eval", "votes", str(tmp_path / "votes.db")]) == 0
    shown = capsys.readouterr()
    assert "2 different sets have the name 'zeta'" in shown.err
    assert shown.out.splitlines()[0].startswith("set\tstrength") and "ann\t3\t" in shown.out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["missing"], "neither a folder nor a run"),
        (["missing.db"], "The file of votes 'missing.db' does not exist"),
        (["votes.db", "--against", "x"], "No vote names the set 'x'; the sets are a, b."),
        (["votes.db", "--add", "votes.db"], "cannot be read"),
        (["votes.db", "--to", "no/file.jsonl"], "The folder 'no' of the output does not exist"),
        (["empty.db"], "has no votes; collect some"),
        (["other.db"], "is of another program or version"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, capsys, monkeypatch, command, said) -> None:
    import sqlite3

    monkeypatch.chdir(tmp_path)
    filled(tmp_path, [cast("a", "b", "left")])
    for name, statement in (("empty.db", "CREATE TABLE x (y)"), ("other.db", "CREATE TABLE votes (id)")):
        with closing(sqlite3.connect(name)) as connection:
            connection.execute(statement)
    assert main(["eval", "votes", *command]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.out == "" and not (tmp_path / "missing.db").exists()


def test_without_votes_there_is_nothing_to_analyse() -> None:
    with pytest.raises(InputError, match=r"There are no votes to analyse\. Collect"):
        analyse_votes([])
    with pytest.raises(InputError, match="All 10 are of excluded raters"):
        analyse_votes(careless("bob", 3, 3))
