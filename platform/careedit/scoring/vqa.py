"""VQA-style scoring: three yes/no questions per edit, and their probabilities (arXiv 2404.01291, VQAScore)."""

from __future__ import annotations

from collections.abc import Sequence

from careedit.scoring.base import AskedQuestion, Asker, JudgeIdentity, Question, Score, ScoreRequest, identity_of

PROMPTS = "vqa-2"
"""Version of the questions below."""

FOLLOWED = (
    'The first picture was to be edited into the second as follows: "{instruction}". Was this done? Answer yes or no.'
)
PRESERVED = (
    'The first picture was to be edited into the second as follows: "{instruction}". '
    "Apart from that, is everything as it was? Answer yes or no."
)
CLEAN = (
    'The first picture was to be edited into the second as follows: "{instruction}". '
    "Apart from what this asks for, is the second picture sharp and free of artefacts? Answer yes or no."
)
"""It holds the instruction, since a blur that was asked for is no artefact."""
FOLLOWED_REFERENCE = (
    'The first picture was to be edited into the second as follows, the third being the reference: "{instruction}". '
    "Was this done? Answer yes or no."
)


def questions_for(request: ScoreRequest) -> tuple[tuple[str, Question], ...]:
    """(aspect, question) for the three aspects."""
    pair = (request.source, request.edited)
    followed = FOLLOWED_REFERENCE if request.references else FOLLOWED
    texts = (
        ("followed", (*pair, *request.references), followed),
        ("preserved", pair, PRESERVED),
        ("clean", pair, CLEAN),
    )
    return tuple(
        (aspect, Question(images=images, text=text.format(instruction=request.instruction)))
        for aspect, images, text in texts
    )


class VqaScorer:
    """Scores by P("yes") to `questions_for` an edit."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker

    @property
    def identity(self) -> JudgeIdentity:
        """See `careedit.scoring.base.Scorer`."""
        return identity_of(self.asker, PROMPTS)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `careedit.scoring.base.Scorer`."""
        posed = [[(aspect, True, question) for aspect, question in questions_for(request)] for request in requests]
        return score_all(self.asker, PROMPTS, posed)


Posed = tuple[str, bool, Question]
"""A question with the aspect that it speaks for and the answer that is wanted."""


def score_all(asker: Asker, prompts: str, posed: Sequence[Sequence[Posed]]) -> list[Score]:
    """One score per edit, from the questions posed about it; all are asked in one call."""
    answers = iter(asker.ask([question for questions in posed for _, _, question in questions]))
    identity = identity_of(asker, prompts)
    return [
        score_of(
            [
                AskedQuestion(aspect=aspect, question=question.text, answer=next(answers), wanted=wanted)
                for aspect, wanted, question in questions
            ],
            identity,
        )
        for questions in posed
    ]


def score_of(asked: Sequence[AskedQuestion], judge: JudgeIdentity) -> Score:
    """One score from answered questions: per aspect the mean of P(the wanted answer), overall the aspects' product.

    The first answer that could not be read makes the score an error.
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
        # No question about an aspect: nothing speaks against it.
        aspects[aspect] = sum(shares) / len(shares) if shares else 1.0
    return Score(
        followed=aspects["followed"],
        preserved=aspects["preserved"],
        clean=aspects["clean"],
        overall=aspects["followed"] * aspects["preserved"] * aspects["clean"],
        judge=judge,
        asked=tuple(asked),
    )
