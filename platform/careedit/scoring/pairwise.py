"""Which of two edits is better? Each pair is judged in both orders, because judges favour a position.

If the orders disagree, the pair is a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from careedit.errors import InputError
from careedit.record import Record
from careedit.records import MAX_INSTRUCTION_CHARACTERS, Picture
from careedit.scoring.scorer import Answer, Asker, JudgeIdentity, Probability, Question, check_size, identity_of
from careedit.scoring.vqa import lead_of

PROMPTS = "pairwise-2"
"""Version of the question below and of its lead."""

BETTER = (
    "The last three pictures are the one before and two results. Is the last one better than the one before it? "
    "Answer yes or no."
)

Side = Literal["first", "second", "tie"]


class Pair(Record):
    """Two edits of one picture by one instruction."""

    source: Picture
    """The picture before the edits."""
    first: Picture
    """One edit, of the source's size."""
    second: Picture
    """The other edit, of the source's size."""
    instruction: str = Field(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)
    """The instruction, which says what to change."""
    references: tuple[Picture, ...] = Field(default=(), max_length=1)
    """The reference of both edits, if they had one; at most one is supported."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Pair:
        for name, edit in (("first", self.first), ("second", self.second)):
            check_size(edit, self.source, f"The {name} edit", "compare edits at their source's size")
        return self


class Preference(Record):
    """Which edit of a pair a judge prefers, or why that is unknown."""

    first: Probability | None = None
    """P(the first edit is the better one), the mean over both orders."""
    winner: Side | None = None
    """The edit that wins in both orders; "tie" if the orders disagree or neither has a winner."""
    orders: tuple[Answer, Answer]
    """P(the edit that is shown last is better): with the second edit last, and with the first edit last."""
    judge: JudgeIdentity
    """The identity of the judge."""
    error: str | None = None
    """Why the preference is missing, as a sentence."""

    @model_validator(mode="after")
    def _check_whole(self) -> Preference:
        if any((value is None) != (self.error is not None) for value in (self.first, self.winner)):
            raise InputError("A preference holds either its numbers or an error; give exactly one of them.")
        return self


def compare(asker: Asker, pairs: Sequence[Pair]) -> list[Preference]:
    """One preference per pair, in their order; two questions each, all asked in one call."""
    questions = [
        question
        for pair in pairs
        for question in (_question(pair, pair.first, pair.second), _question(pair, pair.second, pair.first))
    ]
    answers = asker.ask(questions)
    judge = identity_of(asker, PROMPTS)
    return [_preference((one, other), judge) for one, other in zip(answers[::2], answers[1::2], strict=True)]


def order_consistency(preferences: Sequence[Preference]) -> float:
    """The share of preferences without an error for which both orders name the same winner.

    Raises `InputError` if every preference has an error.
    """
    named = [_by_order(*preference.orders) for preference in preferences if preference.error is None]
    if not named:
        raise InputError("Order consistency needs at least one preference without an error; compare some pairs first.")
    return sum(one == other for one, other in named) / len(named)


def _question(pair: Pair, earlier: Picture, later: Picture) -> Question:
    images = (*pair.references, pair.source, earlier, later)
    return Question(lead=lead_of(pair.instruction, pair.references), images=images, text=BETTER)


def _preference(orders: tuple[Answer, Answer], judge: JudgeIdentity) -> Preference:
    second_last, first_last = (answer.yes for answer in orders)
    if second_last is None or first_last is None:
        error = orders[0].error or orders[1].error
        return Preference(orders=orders, judge=judge, error=error)
    one, other = _by_order(*orders)
    return Preference(
        first=(1 - second_last + first_last) / 2,
        winner=one if one == other else "tie",
        orders=orders,
        judge=judge,
    )


def _by_order(second_last: Answer, first_last: Answer) -> tuple[Side, Side]:
    """The winner in each order."""
    return _side(1 - (second_last.yes or 0.0)), _side(first_last.yes or 0.0)


def _side(first: float) -> Side:
    return "tie" if first == 0.5 else "first" if first > 0.5 else "second"
