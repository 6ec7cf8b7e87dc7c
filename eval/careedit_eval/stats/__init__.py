"""Statistics of paired comparisons: intervals over source images, tests, corrections, margins and power."""

from careedit.stats import LEVEL, Interval
from careedit_eval.stats.clusters import Clusters, cluster_means
from careedit_eval.stats.davidson import Game, Strength, davidson_strengths, pair_information, tiers_of
from careedit_eval.stats.intervals import (
    clustered_differences,
    difference_interval,
    interval_of_differences,
    mean_interval,
    scale_of,
)
from careedit_eval.stats.power import Spread, assumed_spread, detectable_difference, images_needed, spread_of
from careedit_eval.stats.sequential import Anytime, confidence_sequence, difference_sequence, sample_ratio_p
from careedit_eval.stats.significance import holm, non_inferiority, sign_flip_p

__all__ = [
    "LEVEL",
    "Anytime",
    "Clusters",
    "Game",
    "Interval",
    "Spread",
    "Strength",
    "assumed_spread",
    "cluster_means",
    "clustered_differences",
    "confidence_sequence",
    "davidson_strengths",
    "detectable_difference",
    "difference_interval",
    "difference_sequence",
    "holm",
    "images_needed",
    "interval_of_differences",
    "mean_interval",
    "non_inferiority",
    "pair_information",
    "sample_ratio_p",
    "scale_of",
    "sign_flip_p",
    "spread_of",
    "tiers_of",
]
