"""Two sets side by side: what differs, how surely, and on which samples."""

from careedit_eval.compare.differences import Difference, compare_arms
from careedit_eval.compare.preferences import (
    Preference,
    games_of,
    pairwise_outputs,
    preference_from,
    preferences_of,
)
from careedit_eval.compare.summary import Flip, Flips, Mean, flips_of, summarise

__all__ = [
    "Difference",
    "Flip",
    "Flips",
    "Mean",
    "Preference",
    "compare_arms",
    "flips_of",
    "games_of",
    "pairwise_outputs",
    "preference_from",
    "preferences_of",
    "summarise",
]
