"""Two sets of numbers side by side: means, intervals, tests and flips, against values computed by hand."""

import numpy as np
import pytest

from careedit_eval.bench.statistics import contradicts, judged, skewed
from careedit_eval.compare import compare_arms, flips_of, summarise
from careedit_eval.records import Output
from careedit_eval.results import EditLine, ScoreLine, Table
from careedit_eval.stats import assumed_spread, detectable_difference, difference_interval, sign_flip_p

OUTPUTS = {
    "q": Output(name="q", better="higher"),
    "d": Output(name="d", better="lower"),
    "ok": Output(name="ok", better="higher", passes=True),
}


def table(values: dict[str, dict[str, list[float | None]]]) -> Table:
    """A table of arm -> number -> values; two samples per source picture, kinds in turn."""
    edits, scores = [], []
    for arm, columns in values.items():
        for output, column in columns.items():
            for i, value in enumerate(column):
                where = ("b", arm, f"s{i}", 0, ("Add", "Remove")[i % 2], f"g{i // 2}")
                edits.append(EditLine(*where, "words", "k", "p.png", 4, 0.5, "", "none", None))
                scores.append(ScoreLine(*where, output, None, value, None if value is not None else "broken", ""))
    return Table(edits, scores)


def test_a_difference_is_the_mean_of_pairs_with_everything_beside_it() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=40)
    delta = rng.normal(0.5, 1, size=40)
    found = compare_arms(table({"a": {"q": a.tolist()}, "b": {"q": (a + delta).tolist()}}), "a", "b", OUTPUTS)
    whole, add, remove = found
    groups = [i // 2 for i in range(40)]
    images = delta.reshape(20, 2).mean(axis=1)
    assert (whole.kind, add.kind, remove.kind) == ("all", "Add", "Remove")
    assert (whole.pairs, whole.images, add.pairs) == (40, 20, 20)
    assert whole.difference == pytest.approx(delta.mean())
    assert whole.interval == pytest.approx(difference_interval(a, a + delta, groups))
    assert whole.p == sign_flip_p(delta.reshape(20, 2).sum(axis=1))
    assert whole.effect == pytest.approx(images.mean() / images.std(ddof=1))
    spread = assumed_spread(deviation=float(images.std(ddof=1)))
    assert whole.level == 0.05 / 3 and whole.detectable == pytest.approx(
        detectable_difference(spread, 20, alpha=0.05 / 3)
    )
    assert (whole.wins, whole.ties, whole.losses) == (int((delta > 0).sum()), 0, int((delta < 0).sum()))
    told = sorted(one.p for one in found if one.p is not None)
    assert min(one.p_adjusted for one in found if one.p_adjusted is not None) == pytest.approx(3 * told[0])


def test_lower_is_better_where_the_number_says_so() -> None:
    column = [0.5] * 30
    (whole, *_) = compare_arms(
        table({"a": {"d": column}, "b": {"d": [0.2 + 0.001 * i for i in range(30)]}}), "a", "b", OUTPUTS
    )
    assert (whole.wins, whole.losses, whole.verdict) == (30, 0, "better")


def test_a_set_compared_with_itself_shows_nothing() -> None:
    column = np.random.default_rng(1).normal(size=30).tolist()
    for one in compare_arms(table({"a": {"q": column}, "b": {"q": column}}), "a", "b", OUTPUTS):
        assert (one.difference, one.p_adjusted, one.verdict) == (0.0, None, "no difference seen")
        assert (one.wins, one.losses) == (0, 0) and one.interval is not None
        assert one.interval.low == -one.interval.high < -0.1 and one.detectable is not None and one.detectable > 0.1


def test_errors_are_counted_on_each_side_and_never_paired() -> None:
    a, b = [1.0, 2.0, None, 4.0, 5.0], [1.0, None, 3.0, 4.5, 5.5]
    (whole, *_) = compare_arms(table({"a": {"q": list(a)}, "b": {"q": list(b)}}), "a", "b", OUTPUTS)
    assert (whole.pairs, whole.errors_a, whole.errors_b, whole.unpaired) == (3, 1, 1, ("s1", "s2"))
    assert whole.mean_a == pytest.approx(10 / 3) and whole.difference == pytest.approx(1 / 3)


def test_pass_and_fail_are_tested_by_signs_of_pictures() -> None:
    a, b = [0.0, 1.0] * 4 + [1.0] * 8, [1.0, 0.0] * 2 + [1.0, 1.0] * 2 + [1.0] * 8
    found = compare_arms(table({"a": {"ok": list(a)}, "b": {"ok": list(b)}}), "a", "b", OUTPUTS)
    by_kind = {one.kind: one for one in found}
    assert by_kind["Add"].p == pytest.approx(2 / 16)  # one per source picture: four won, none lost, exact
    # Two per picture: four won and two lost, but no picture lost more than it won.
    assert by_kind["all"].p == pytest.approx(2 / 4)
    assert (by_kind["all"].wins, by_kind["all"].losses) == (4, 2)


def test_many_small_losses_and_few_large_gains_are_not_called_better() -> None:
    found = judged(np.r_[np.full(34, -0.01), np.full(6, 0.2)])
    assert found.difference is not None and found.difference > 0 and (found.wins, found.losses) == (6, 34)
    assert found.verdict == "no difference seen" and found.p == pytest.approx(0.066, abs=0.01)


def test_no_verdict_contradicts_its_mean_interval_or_test_and_few_are_said_of_equal_means() -> None:
    rng = np.random.default_rng(6)
    found = [judged(skewed(rng, i % 4)) for i in range(400)]
    assert not any(map(contradicts, found))
    assert sum(one.verdict != "no difference seen" for one in found[::4]) <= 10  # of 100, at 5 %


def test_the_primary_number_and_margins_are_tested_alone_and_the_others_together() -> None:
    rng = np.random.default_rng(0)
    a, delta = rng.normal(size=40), rng.normal(0.45, 1, size=40)
    columns = {name: {"q": a.tolist(), "d": a.tolist()} for name in "ab"}
    columns["b"] = {"q": (a + delta).tolist(), "d": (a + delta).tolist()}
    lines = compare_arms(table(columns), "a", "b", OUTPUTS, alone={("q", "all"), ("d", "Add")})
    by_line = {(one.output, one.kind): one for one in lines}
    primary, other = by_line["q", "all"], by_line["d", "all"]
    assert primary.alone and (primary.p_adjusted, primary.level) == (primary.p, 0.05)
    assert not other.alone and other.level == 0.05 / 4 and other.p_adjusted > other.p == primary.p
    assert (primary.verdict, by_line["d", "Add"].level) == ("better", 0.05)
    assert other.detectable > 1.15 * primary.detectable


def test_flips_are_sorted_by_what_was_lost_and_a_failure_is_the_worst() -> None:
    a, b = [0.5, 0.5, 0.5, 0.5, None], [0.4, 0.9, None, 0.5, 0.1]
    found = flips_of(table({"a": {"q": list(a)}, "b": {"q": list(b)}}), "a", "b", OUTPUTS["q"])
    assert [flip.sample_id for flip in found.losses] == ["s2", "s0"]
    assert [flip.sample_id for flip in found.wins] == ["s4", "s1"]


def test_means_state_their_rows_and_errors() -> None:
    (whole, *_) = summarise(table({"a": {"q": [1.0, 2.0, 3.0, None]}}), OUTPUTS)
    assert (whole.mean, whole.n, whole.errors) == (2.0, 3, 1)
    assert whole.interval is not None and whole.interval.low < 2 < whole.interval.high
