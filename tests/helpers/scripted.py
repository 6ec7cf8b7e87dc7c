"""A judge that answers by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from careedit.scoring.scorer import Answer, Question


class Scripted:
    """Answers by a rule, and records the questions."""

    backend, model, revision = "scripted", "rule", "1"

    def __init__(self, rule: Callable[[Question], float | str]) -> None:
        self.rule = rule
        self.asked: list[Question] = []
        self.calls = 0

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """A number is P(yes), a text an error."""
        self.calls += 1
        self.asked += questions
        said = [self.rule(question) for question in questions]
        return [Answer(error=answer) if isinstance(answer, str) else Answer(yes=answer) for answer in said]
