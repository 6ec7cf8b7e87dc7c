"""Bootstrap intervals, against scipy's, against a hand-made one, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from careedit.errors import InputError
from careedit_eval.stats import Interval, cluster_interval, cluster_means


def skewed(n: int = 60, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=n)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_an_interval_of_independent_rows_is_scipys_up_to_the_draws(method: str) -> None:
    values = skewed()
    theirs = stats.bootstrap(
        (values,), np.mean, method=method, n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = cluster_interval(values, method=method)
    assert ours == pytest.approx(theirs, abs=0.02)


def test_an_interval_over_clusters_is_scipys_of_the_ratio_of_sums_to_counts() -> None:
    rng = np.random.default_rng(5)
    clusters = rng.integers(20, size=90)
    values = rng.normal(size=90) + clusters / 10
    names = list(dict.fromkeys(clusters.tolist()))
    sums = np.array([values[clusters == name].sum() for name in names])
    counts = np.array([(clusters == name).sum() for name in names])
    theirs = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert cluster_interval(values, clusters.tolist()) == pytest.approx(theirs, abs=0.03)


def test_rows_of_one_picture_widen_the_interval_since_they_say_the_same() -> None:
    values = np.repeat(skewed(20), 5)
    alone, together = cluster_interval(values), cluster_interval(values, np.repeat(np.arange(20), 5).tolist())
    assert alone is not None and together is not None
    assert together.high - together.low > 1.8 * (alone.high - alone.low)


def test_the_same_rows_give_the_same_bounds() -> None:
    assert cluster_interval(skewed()) == cluster_interval(skewed())


@pytest.mark.parametrize(
    ("values", "clusters", "interval"),
    [([0.5], None, None), ([0.2, 0.4], ["a", "a"], None), ([0.25] * 6, None, Interval(0.25, 0.25))],
)
def test_too_few_pictures_have_no_interval_and_equal_ones_a_point(values, clusters, interval) -> None:
    assert cluster_interval(values, clusters) == interval


@pytest.mark.parametrize(
    ("values", "clusters", "words"),
    [([], None, "one or more values"), ([1.0, float("nan")], None, "finite"), ([1.0, 2.0], ["a"], "one cluster per")],
)
def test_what_is_no_score_is_refused(values, clusters, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cluster_interval(values, clusters)


def test_cluster_means_keep_the_order_of_appearance() -> None:
    assert cluster_means([1.0, 5.0, 3.0, 7.0], ["b", "a", "b", "a"]).tolist() == [2.0, 6.0]


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng, hits, runs = np.random.default_rng(11), 0, 300
    for seed in range(runs):
        pictures = rng.normal(0.1, 0.3, size=40)
        rows = (pictures[:, None] + rng.normal(0, 0.2, size=(40, 2))).ravel()
        found = cluster_interval(rows, np.repeat(np.arange(40), 2).tolist(), draws=800, seed=seed)
        hits += found is not None and found.low <= 0.1 <= found.high
    assert 0.91 <= hits / runs <= 0.985


def test_equal_sets_are_told_apart_no_oftener_than_stated() -> None:
    rng, alarms, runs = np.random.default_rng(12), 0, 300
    for seed in range(runs):
        a, b = rng.binomial(1, 0.6, size=(2, 60))
        found = cluster_interval(b - a, draws=800, seed=seed)
        alarms += found is not None and not found.low <= 0 <= found.high
    assert alarms / runs <= 0.09
