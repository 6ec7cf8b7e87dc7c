"""Scorers that a scorer pool in another process can make by name."""

from __future__ import annotations

import os

from careedit.scoring import JudgeIdentity, Score

IDENTITY = JudgeIdentity(backend="import", model="by-place", revision="1", prompts="none-1")


DEADLY = "the judge dies of this"
"""An instruction on which the judge's process exits."""


class ByPlace:
    """Likes the last of several previews best."""

    identity = IDENTITY

    def score(self, requests):
        if any(request.instruction == DEADLY for request in requests):
            os._exit(1)
        count = len(requests)
        values = [(i + 1) / (count + 1) for i in range(count)]
        return [Score(followed=x, preserved=1.0, clean=1.0, overall=x, judge=IDENTITY) for x in values]
