"""English instructions: their words, their clauses, and the edit kinds that they ask for. Patterns, without a model."""

from careedit.language.clauses import Clause, clauses_of, except_for
from careedit.language.grammar import COMPETENCES
from careedit.language.kinds import Evidence, kinds_of, listed, normalise, words_of

__all__ = [
    "COMPETENCES",
    "Clause",
    "Evidence",
    "clauses_of",
    "except_for",
    "kinds_of",
    "listed",
    "normalise",
    "words_of",
]
