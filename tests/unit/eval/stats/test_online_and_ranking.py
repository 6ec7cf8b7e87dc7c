"""Always-valid intervals, the sample ratio, and Davidson's model."""

import numpy as np
import pytest
from scipy import stats

from careedit.errors import InputError
from careedit_eval.stats import Game, confidence_sequence, davidson_strengths, sample_ratio_p


def test_looking_after_every_row_raises_no_more_alarms_than_stated() -> None:
    rng, alarms, runs = np.random.default_rng(2), 0, 100
    for _ in range(runs):
        rows = rng.normal(size=400)
        looks = (confidence_sequence(rows[:n]) for n in range(30, 401, 5))
        alarms += any(look is not None and not look.interval.low <= 0 <= look.interval.high for look in looks)
    assert alarms / runs <= 0.05


def test_a_confidence_sequence_narrows_and_pays_for_peeking() -> None:
    rows = np.random.default_rng(4).normal(size=2000)
    early, late = confidence_sequence(rows[:200]), confidence_sequence(rows)
    assert early is not None and late is not None
    assert late.interval.high - late.interval.low < early.interval.high - early.interval.low
    assert late.interval.high - late.interval.low > 2 * 1.96 * rows.std(ddof=1) / np.sqrt(2000)
    assert confidence_sequence([1.0]) is None


def test_a_split_as_ordered_is_fine_and_another_is_not() -> None:
    p = sample_ratio_p({"a": 480, "b": 520}, {"a": 0.5, "b": 0.5})
    assert p == pytest.approx(float(stats.chisquare([480, 520]).pvalue))
    assert sample_ratio_p({"a": 300, "b": 700}, {"a": 1, "b": 1}) < 1e-9
    assert sample_ratio_p({"a": 10, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 0}) == 0.0
    assert sample_ratio_p({"a": 0, "b": 0}, {"a": 1, "b": 1}) == 1.0
    with pytest.raises(InputError, match="same arms"):
        sample_ratio_p({"a": 1}, {"b": 1})


def test_two_sets_have_the_strengths_that_their_wins_say() -> None:
    # For two sets the likeliest P(win), P(loss), P(tie) are the shares themselves.
    games = [Game("a", "b", 1)] * 8 + [Game("b", "a", 1)] * 2 + [Game("a", "b", 0.5)] * 4
    (first, second), tie = davidson_strengths(games, anchor="b")
    assert (first.name, second.name, second.strength) == ("a", "b", 0.0)
    assert first.strength == pytest.approx(np.log(4), abs=1e-3)
    assert tie == pytest.approx(4 / 14 / np.sqrt(8 / 14 * 2 / 14), rel=1e-3)


def test_three_sets_are_ranked_and_the_anchor_does_not_move_the_distances() -> None:
    rng = np.random.default_rng(7)
    truth = {"a": 1.0, "b": 0.0, "c": -1.0}
    games = [
        Game(x, y, float(rng.random() < 1 / (1 + np.exp(truth[y] - truth[x]))))
        for x, y in [("a", "b"), ("b", "c"), ("a", "c")] * 300
    ]
    strengths, tie = davidson_strengths(games, anchor="b")
    assert {one.interval for one in strengths} == {None}, "nothing says which verdicts share a picture"
    again, _ = davidson_strengths(games, anchor="c")
    assert [one.name for one in strengths] == ["a", "b", "c"]
    assert [one.strength for one in strengths] == pytest.approx([1, 0, -1], abs=0.2)
    assert strengths[0].strength == pytest.approx(again[0].strength - again[1].strength, abs=1e-2)
    assert tie < 1e-3 and {one.games for one in strengths} == {600}


def test_strengths_have_intervals_over_pictures_that_are_wider_where_verdicts_share_one(monkeypatch) -> None:
    monkeypatch.setattr("careedit_eval.stats.davidson.DRAWS", 100)
    rng = np.random.default_rng(8)
    won = [("a", "b", rng.random() < 0.7) for _ in range(60)] + [("b", "c", rng.random() < 0.6) for _ in range(60)]
    widths = []
    for copies in (1, 4):
        games = [Game(x, y, float(yes), i) for i, (x, y, yes) in enumerate(won) for _ in range(copies)]
        strengths, _ = davidson_strengths(games, anchor="b")
        by_name = {one.name: one for one in strengths}
        assert by_name["b"].interval is None
        found = by_name["a"].interval
        assert found.low < by_name["a"].strength < found.high
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.01), "four copies of a verdict say no more than one"


def test_verdicts_that_cannot_rank_a_set_are_refused() -> None:
    games = [Game("a", "b", 1), Game("b", "a", 1), Game("a", "c", 1)]
    with pytest.raises(InputError, match="'c'"):
        davidson_strengths(games, anchor="a")
    with pytest.raises(InputError, match="anchor"):
        davidson_strengths(games, anchor="z")
