"""Judges of edits: their scores are probabilities or an error, never a made-up number."""

from careedit.scoring.atomic import AtomicScorer
from careedit.scoring.pairwise import Pair, Preference, compare, order_consistency
from careedit.scoring.scorer import (
    Answer,
    AskedQuestion,
    Asker,
    JudgeIdentity,
    Question,
    Score,
    Scorer,
    ScoreRequest,
)
from careedit.scoring.vqa import VqaScorer, questions_for, score_of

__all__ = [
    "Answer",
    "AskedQuestion",
    "Asker",
    "AtomicScorer",
    "JudgeIdentity",
    "Pair",
    "Preference",
    "Question",
    "Score",
    "ScoreRequest",
    "Scorer",
    "VqaScorer",
    "compare",
    "order_consistency",
    "questions_for",
    "score_of",
]
