"""A scorer with metrics and spans: each call of the judge is a child span of its edit, and is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from careedit.scoring import JudgeIdentity, Score, Scorer, ScoreRequest
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import Tracing


class WatchedScorer:
    """A scorer for one edit. Each edit has its own, because the spans are children of the span of the edit."""

    def __init__(self, scorer: Scorer, tracing: Tracing, metrics: Metrics, trace_headers: Mapping[str, str]) -> None:
        """`trace_headers` are the headers of the parent span."""
        self._scorer, self._tracing, self._metrics, self._headers = scorer, tracing, metrics, trace_headers

    @property
    def identity(self) -> JudgeIdentity:
        """Identity of the judge."""
        return self._scorer.identity

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in their order."""
        with self._tracing.span("scorer", self._headers, kind="client", pictures=len(requests)):
            try:
                scores = self._scorer.score(requests)
            except BaseException:
                self._metrics.judged("failed", len(requests))
                raise
        count_scores(self._metrics, scores)
        return scores


def count_scores(metrics: Metrics, scores: Sequence[Score]) -> None:
    """Count scores and errors separately."""
    given = sum(score.error is None for score in scores)
    metrics.judged("given", given)
    metrics.judged("failed", len(scores) - given)
