"""Atomic judging (JURE, arXiv 2504.07424): many small questions per edit, which together say what is right and wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from careedit.scoring.atoms import Atom, atoms_of
from careedit.scoring.base import Asker, JudgeIdentity, Question, Score, ScoreRequest, identity_of
from careedit.scoring.vqa import questions_for, score_all

PROMPTS = "atomic-2"
"""Version of the questions and of the patterns that choose them."""

END = " Answer yes or no."


class AtomicScorer:
    """Scores by the answers to `atoms_of` an instruction; a `Scorer` whose `asked` says which of them went wrong.

    All aspects weigh their questions equally. An instruction with a reference is not taken apart, as its words speak
    of a picture that is not part of the edit; it is asked about as a whole, and about unwanted change all the same.
    """

    def __init__(self, asker: Asker) -> None:
        self.asker = asker

    @property
    def identity(self) -> JudgeIdentity:
        """See `careedit.scoring.base.Scorer`."""
        return identity_of(self.asker, PROMPTS)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `careedit.scoring.base.Scorer`; all questions are asked in one call."""
        posed = [
            [(atom.aspect, atom.wanted, question) for atom, question in atomic_questions(request)]
            for request in requests
        ]
        return score_all(self.asker, PROMPTS, posed)


def atomic_questions(request: ScoreRequest) -> tuple[tuple[Atom, Question], ...]:
    """Every question about one edit, with what its answer means."""
    pair = (request.source, request.edited)
    whole = {aspect: question for aspect, question in questions_for(request)}
    atoms = atoms_of(request.instruction)
    posed = [(atom, Question(images=pair, text=atom.text + END)) for atom in atoms]
    if request.references:
        posed = [(atom, question) for atom, question in posed if not atom.wanted and atom.aspect == "preserved"]
        posed.insert(0, (Atom("followed", whole["followed"].words), whole["followed"]))
    return (*posed, (Atom("clean", whole["clean"].words), whole["clean"]))
