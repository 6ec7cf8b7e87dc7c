"""Intervals of clustered means: against textbook values, known data, and by simulation with fixed seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from careedit.errors import InputError
from careedit_eval.bench.statistics import COVERAGE, LOSSES, share_covered, share_passed
from careedit_eval.stats import Clusters, Interval, cluster_means, difference_interval, mean_interval
from careedit_eval.stats.intervals import flips_interval


def test_a_rates_interval_is_wilsons() -> None:
    theirs = stats.binomtest(81, 263).proportion_ci(method="wilson")
    assert mean_interval([1.0] * 81 + [0.0] * 182) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize(("won", "lost", "rows"), [(1, 6, 14), (0, 0, 50), (0, 2, 240), (10, 5, 100), (3.2, 0.7, 31.5)])
def test_flips_have_the_interval_of_all_differences_that_a_score_test_keeps(won, lost, rows) -> None:
    for end in flips_interval(won, lost, rows, 1.96):  # at the ends the score statistic is the quantile
        share = _constrained(won, lost, rows, end)
        score = (won - lost - rows * end) ** 2 / (rows * (2 * share + end * (1 - end)))
        assert score == pytest.approx(1.96**2, rel=1e-4)


def _constrained(won: int, lost: int, rows: int, difference: float) -> float:
    """The share lost that is the likeliest under a mean difference, by a plain search."""
    grid = np.linspace(max(0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9, 400_001)
    with np.errstate(divide="ignore"):
        rest = np.log(np.maximum(1 - 2 * grid - difference, 1e-300)) * (rows - won - lost)
        likelihood = rest + won * np.log(grid + difference + 1e-300) + lost * np.log(grid)
    return float(grid[likelihood.argmax()])


def test_equal_clusters_have_the_t_interval_of_their_means_and_never_a_narrower_one() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(size=24)
    rows, labels = np.repeat(means, 3) + np.tile([-1.0, 0.0, 1.0], 24), np.repeat(np.arange(24), 3).tolist()
    found = Clusters(rows, labels)
    assert found.error == pytest.approx(means.std(ddof=1) / math.sqrt(24)) and found.freedom == pytest.approx(23)
    theirs = stats.t.interval(0.95, 23, means.mean(), means.std(ddof=1) / math.sqrt(24))
    ours = mean_interval(rows, labels)
    assert ours is not None and ours.low <= theirs[0] + 1e-9 and ours.high >= theirs[1] - 1e-9


def test_degrees_of_freedom_are_satterthwaites_of_the_very_quadratic_form() -> None:
    counts = np.array([1.0, 2, 3, 8, 1, 8])
    rows = Clusters(np.arange(23.0), np.repeat(np.arange(6), counts.astype(int)).tolist())
    weights = counts / 23
    centred = np.eye(6) - np.outer(np.ones(6), weights)
    form = centred.T @ np.diag(weights**2 / (1 - weights)) @ centred
    assert rows.freedom == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))


def test_rows_of_one_picture_widen_the_interval_since_they_say_the_same() -> None:
    for values in (np.random.default_rng(3).exponential(size=20), (np.arange(20) % 3 == 0).astype(float)):
        alone = mean_interval(np.repeat(values, 5))
        together = mean_interval(np.repeat(values, 5), np.repeat(np.arange(20), 5).tolist())
        assert alone is not None and together is not None
        assert together.high - together.low > 1.8 * (alone.high - alone.low)


@pytest.mark.parametrize("n", [20, 60, 400])
@pytest.mark.parametrize(("number", "passes", "scale"), [(1.0, True, 1.0), (0.0, True, 1.0), (0.2, False, 0.2)])
def test_no_difference_at_all_is_no_point_but_the_rule_of_three(n: int, number: float, passes: bool, scale) -> None:
    found = difference_interval([number] * n, [number] * n, passes=passes)
    assert found is not None and found == pytest.approx((-found.high, found.high))
    assert 3.0 / (n + 4) < found.high / scale < 4.0 / n


def test_no_difference_on_a_number_is_as_wide_as_its_values_are_large() -> None:
    small, large = (difference_interval([0.1, size] * 30, [0.1, size] * 30) for size in (0.2, 0.9))
    assert small is not None and large is not None and large.high == pytest.approx(4.5 * small.high)


def test_a_change_of_every_picture_by_the_same_amount_is_no_point_either() -> None:
    before = np.linspace(0.3, 0.9, 40)
    found = difference_interval(before, before - 0.03)
    assert found is not None and found.low < -0.03 < found.high < 0


@pytest.mark.parametrize("rounding", [0.0, 4e-10, 2e-7])
def test_differences_of_rounding_alone_are_none(rounding: float) -> None:
    before = np.linspace(0.3, 0.9, 40)
    found = difference_interval(before, before + rounding * np.resize([1, -1, 0.5], 40))
    assert found is not None and found.high == pytest.approx(0.9 * 1.959964**2 / (40 + 1.959964**2))


@pytest.mark.parametrize("labels", [["a"] * 6, None])
def test_one_picture_and_numbers_that_are_all_zero_have_no_interval(labels) -> None:
    values = [0.0] * 6
    assert difference_interval(values, values, labels) is None
    assert mean_interval([0.2, 0.4], ["a", "a"]) is None and mean_interval([0.5]) is None
    assert mean_interval([0.25] * 6) == Interval(0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "labels", "words"),
    [([], None, "one or more values"), ([1.0, float("nan")], None, "finite"), ([1.0, 2.0], ["a"], "one cluster per")],
)
def test_what_is_no_score_is_refused(values, labels, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mean_interval(values, labels)


def test_cluster_means_keep_the_order_of_appearance() -> None:
    assert cluster_means([1.0, 5.0, 3.0, 7.0], ["b", "a", "b", "a"]).tolist() == [2.0, 6.0]


def test_a_rate_of_all_or_none_has_a_width() -> None:
    assert mean_interval([1.0] * 20, passes=True) == pytest.approx((20 / (20 + 1.959964**2), 1.0))


@pytest.mark.parametrize("case", COVERAGE)
@pytest.mark.parametrize("n", [20, 48])
def test_intervals_cover_the_truth_of_few_pictures(case: str, n: int) -> None:
    # 500 draws: 0.93 less two standard errors; `careedit eval check-statistics` draws thousands.
    assert share_covered(case, n, 500) >= 0.93 - 2 * math.sqrt(0.93 * 0.07 / 500)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
def test_gates_pass_a_set_that_is_worse_by_its_margin_no_oftener_than_stated(kind: str, margin: float) -> None:
    shares = [share_passed(kind, margin, n, 200) for n in (20, 48)]
    assert max(shares) <= 0.03 + 2 * math.sqrt(0.03 * 0.97 / 200)
