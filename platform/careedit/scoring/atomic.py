"""Atomic judging (JURE, arXiv 2504.07424): many small questions per edit, which together say what is right and wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from careedit.scoring.atoms import Atom, atoms_of
from careedit.scoring.base import AskedQuestion, Asker, JudgeIdentity, Question, Score, ScoreRequest
from careedit.scoring.vqa import questions_for, score_of

PROMPTS = "atomic-1"
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
        """See `careedit.scoring.base.Scorer`; an asker may settle its revision with its first answer."""
        asker = self.asker
        return JudgeIdentity(backend=asker.backend, model=asker.model, revision=asker.revision, prompts=PROMPTS)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `careedit.scoring.base.Scorer`; all questions are asked in one call."""
        posed = [atomic_questions(request) for request in requests]
        answers = iter(self.asker.ask([question for questions in posed for _, question in questions]))
        identity = self.identity
        return [
            score_of(
                tuple(
                    AskedQuestion(aspect=atom.aspect, question=question.text, answer=next(answers), wanted=atom.wanted)
                    for atom, question in questions
                ),
                identity,
            )
            for questions in posed
        ]


def atomic_questions(request: ScoreRequest) -> tuple[tuple[Atom, Question], ...]:
    """Every question about one edit, with what its answer means."""
    pair = (request.source, request.edited)
    whole = {aspect: question for aspect, question in questions_for(request)}
    atoms = atoms_of(request.instruction)
    posed = [(atom, Question(images=pair, text=atom.text + END)) for atom in atoms]
    if request.references:
        posed = [(atom, question) for atom, question in posed if not atom.wanted and atom.aspect == "preserved"]
        posed.insert(0, (Atom("followed", whole["followed"].text), whole["followed"]))
    return (*posed, (Atom("clean", whole["clean"].text), whole["clean"]))
