"""Judges for tests of the early filter."""

from __future__ import annotations

import pytest

from careedit.scoring import JudgeIdentity, Score

IDENTITY = JudgeIdentity(backend="test", model="scripted", revision="1", prompts="none-1")


def score(value: float | None) -> Score:
    """A score whose overall is `value`; None: one that could not be read."""
    if value is None:
        return Score(judge=IDENTITY, error="The answer was a poem.")
    return Score(followed=value, preserved=1.0, clean=1.0, overall=value, judge=IDENTITY)


class Scripted:
    """Gives the next list of scores at each call, and remembers what it was asked."""

    identity = IDENTITY

    def __init__(self, *answers: list[float | None] | Exception) -> None:
        self.answers = list(answers)
        self.asked = []

    def score(self, requests):
        self.asked.append(list(requests))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return [score(value) for value in answer]


@pytest.fixture
def scripted():
    """`scripted([0.1, 0.9], error, ...)`: a scorer that answers so, call by call."""
    return Scripted
