"""A scorer that is watched: each look of the judge is a span below the edit that it is for, and is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from careedit.scoring import JudgeIdentity, Score, Scorer, ScoreRequest
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import Tracing


class WatchedScorer:
    """`scorer`, asked for one edit; made anew for each, because its span hangs below that edit's."""

    def __init__(self, scorer: Scorer, tracing: Tracing, metrics: Metrics, trace_headers: Mapping[str, str]) -> None:
        """`trace_headers` are those of the expert's span."""
        self._scorer, self._tracing, self._metrics, self._headers = scorer, tracing, metrics, trace_headers

    @property
    def identity(self) -> JudgeIdentity:
        """Who judges."""
        return self._scorer.identity

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `Scorer.score`."""
        with self._tracing.span("scorer", self._headers, kind="client", pictures=len(requests)):
            try:
                scores = self._scorer.score(requests)
            except BaseException:
                self._metrics.judged("failed", len(requests))
                raise
        count_scores(self._metrics, scores)
        return scores


def count_scores(metrics: Metrics, scores: Sequence[Score]) -> None:
    """Count judgements that were given, and those that came as errors."""
    given = sum(score.error is None for score in scores)
    metrics.judged("given", given)
    metrics.judged("failed", len(scores) - given)
