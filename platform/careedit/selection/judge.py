"""Asking the judge, with a time limit: if it fails, the filter is lost, never the edit."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread

from careedit.scoring import Score, Scorer, ScoreRequest
from careedit.selection.plan import JudgeFailed

MAX_REASON = 200
"""Maximum of characters of a failure that go into the trace."""


class Judge:
    """A scorer that is asked in a separate thread, so that a caller can stop waiting for it."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._late: Thread | None = None

    @property
    def identity(self) -> dict[str, str]:
        """The scorer's identity, field by field."""
        return dict(self.scorer.identity.model_dump())

    def score(self, requests: Sequence[ScoreRequest], *, timeout: float) -> list[Score]:
        """One score per request, at least one of them without an error.

        Raises `JudgeFailed` if the scorer raises, gives no score, or takes longer than `timeout` seconds. A scorer need not
        be thread-safe, so one that is still busy with an abandoned question is not asked.
        """
        if self._late is not None and self._late.is_alive():
            raise JudgeFailed("the judge is still busy with an earlier edit")
        self._late = None
        answer: list[list[Score]] = []
        failure: list[BaseException] = []

        def ask() -> None:
            try:
                answer.append(list(self.scorer.score(requests)))
            except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
                failure.append(error)

        # A daemon: a judge that hangs must not keep the program from ending.
        thread = Thread(target=ask, name="careedit-judge", daemon=True)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            self._late = thread
            raise JudgeFailed(f"the judge took longer than {timeout:g} seconds")
        if failure:
            raise JudgeFailed(f"the judge failed ({_reason(failure[0])})")
        scores = answer[0]
        if len(scores) != len(requests):
            raise JudgeFailed(f"the judge gave {len(scores)} scores for {len(requests)} previews")
        if all(score.overall is None for score in scores):
            raise JudgeFailed(f"the judge gave no score ({_short(scores[0].error or 'no reason given')})")
        return scores


def _reason(error: BaseException) -> str:
    return _short(str(error) or type(error).__name__)


def _short(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON].rstrip(".")
