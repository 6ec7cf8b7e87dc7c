"""Statistics of paired comparisons: intervals over source images, tests, corrections, margins and power."""

from careedit_eval.stats.davidson import Game, Strength, davidson_strengths
from careedit_eval.stats.intervals import DRAWS, LEVEL, SEED, Interval, cluster_interval, cluster_means
from careedit_eval.stats.margins import non_inferiority
from careedit_eval.stats.power import detectable_difference, samples_needed
from careedit_eval.stats.sequential import Anytime, confidence_sequence, difference_sequence, sample_ratio_p
from careedit_eval.stats.significance import holm, mcnemar_p, wilcoxon_p

__all__ = [
    "DRAWS",
    "LEVEL",
    "SEED",
    "Anytime",
    "Game",
    "Interval",
    "Strength",
    "cluster_interval",
    "cluster_means",
    "confidence_sequence",
    "davidson_strengths",
    "detectable_difference",
    "difference_sequence",
    "holm",
    "mcnemar_p",
    "non_inferiority",
    "sample_ratio_p",
    "samples_needed",
    "wilcoxon_p",
]
