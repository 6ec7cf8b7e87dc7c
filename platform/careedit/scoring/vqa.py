"""VQA-style scoring: three yes/no questions per edit, and their probabilities (arXiv 2404.01291, VQAScore)."""

from __future__ import annotations

from collections.abc import Sequence

from careedit.scoring.scorer import AskedQuestion, Asker, JudgeIdentity, Question, Score, ScoreRequest, identity_of

PROMPTS = "vqa-3"
"""Version of the questions below and of their leads."""

LEAD = 'An edit was asked for: "{instruction}".'
"""Text before the pictures, so that a model reads the instruction first."""
LEAD_REFERENCE = 'An edit was asked for, with the first picture as its reference: "{instruction}".'
FOLLOWED = "The last two pictures are before and after. Was this done? Answer yes or no."
PRESERVED = "The last two pictures are before and after. Apart from that, is everything as it was? Answer yes or no."
CLEAN = (
    "The last two pictures are before and after. Apart from what was asked for, is the last one sharp and free of "
    "artefacts? Answer yes or no."
)
"""The question about artefacts mentions the instruction, because a blur may be asked for."""


def lead_of(instruction: str, references: Sequence[object]) -> str:
    """The text before the pictures; a reference is the first of them."""
    return (LEAD_REFERENCE if references else LEAD).format(instruction=instruction)


def questions_for(request: ScoreRequest) -> tuple[tuple[str, Question], ...]:
    """(aspect, question) for the three aspects; they begin alike, so an engine with a prefix cache reads the pictures once."""
    images = (*request.references, request.source, request.edited)
    lead = lead_of(request.instruction, request.references)
    texts = (("followed", FOLLOWED), ("preserved", PRESERVED), ("clean", CLEAN))
    return tuple((aspect, Question(lead=lead, images=images, text=text)) for aspect, text in texts)


Posed = tuple[str, bool, Question]
"""A question with its aspect and the answer that is wanted."""


class VqaScorer:
    """Scores by P("yes") to `questions_for` an edit; a `careedit.scoring.scorer.Scorer`."""

    prompts = PROMPTS
    """Version of the questions, as in `JudgeIdentity.prompts`."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker

    @property
    def identity(self) -> JudgeIdentity:
        """See `careedit.scoring.scorer.Scorer`."""
        return identity_of(self.asker, self.prompts)

    def posed(self, request: ScoreRequest) -> Sequence[Posed]:
        """The questions about one edit."""
        return [(aspect, True, question) for aspect, question in questions_for(request)]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `careedit.scoring.scorer.Scorer`; all questions are asked in one call."""
        posed = [self.posed(request) for request in requests]
        answers = iter(self.asker.ask([question for questions in posed for _, _, question in questions]))
        identity = self.identity
        return [
            score_of(
                [
                    AskedQuestion(aspect=aspect, question=question.words, answer=next(answers), wanted=wanted)
                    for aspect, wanted, question in questions
                ],
                identity,
            )
            for questions in posed
        ]


def score_of(asked: Sequence[AskedQuestion], judge: JudgeIdentity) -> Score:
    """One score from answered questions: per aspect the mean of P(the wanted answer), overall the aspects' product.

    The first answer with an error makes the score an error.
    """
    for entry in asked:
        if entry.answer.error is not None:
            return Score(judge=judge, asked=tuple(asked), error=f"{entry.aspect}: {entry.answer.error}")
    aspects: dict[str, float] = {}
    for aspect in ("followed", "preserved", "clean"):
        shares = [
            yes if entry.wanted else 1 - yes
            for entry in asked
            if entry.aspect == aspect and (yes := entry.answer.yes) is not None
        ]
        # An aspect without a question counts as right.
        aspects[aspect] = sum(shares) / len(shares) if shares else 1.0
    return Score(
        followed=aspects["followed"],
        preserved=aspects["preserved"],
        clean=aspects["clean"],
        overall=aspects["followed"] * aspects["preserved"] * aspects["clean"],
        judge=judge,
        asked=tuple(asked),
    )
