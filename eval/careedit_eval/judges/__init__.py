"""Whether a judge agrees with people and with itself, and whether it may decide: `careedit eval judge-check`."""

from careedit_eval.judges.check import JudgeCheck, check_judge, judge_of
from careedit_eval.judges.figures import FIGURES, Figure
from careedit_eval.judges.pairs import Rated, RatedPair, rated_votes
from careedit_eval.judges.published import read_published
from careedit_eval.judges.rule import Ruling, file_of, require_judge, ruling_of

__all__ = [
    "FIGURES",
    "Figure",
    "JudgeCheck",
    "Rated",
    "RatedPair",
    "Ruling",
    "check_judge",
    "file_of",
    "judge_of",
    "rated_votes",
    "read_published",
    "require_judge",
    "ruling_of",
]
