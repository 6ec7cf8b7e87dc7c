"""Judging finished edits for the arms' sake: the scores are stored and counted, nobody waits for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from anyio.to_thread import run_sync

from careedit.errors import CareEditError
from careedit.records import EditRequest
from careedit.scoring import Score, ScoreRequest
from careedit_deployments.edits.backend import Backend, ImageDone
from careedit_deployments.state.logs import EditLog
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.scorer import count_scores

ASPECTS = ("overall", "followed", "preserved", "clean")
"""Numbers of a score that are stored."""

logger = logging.getLogger(__name__)


async def judge_edit(
    backend: Backend,
    edits: EditLog,
    metrics: Metrics,
    *,
    edit_id: str,
    arm: str,
    request: EditRequest,
    made: Sequence[ImageDone],
) -> Mapping[str, float] | None:
    """Ask the scorer pool about an edit's images and store the means of their numbers; None: there is no judgement.

    The edit must be stored already. A judge that is away or cannot tell costs the score, nothing else.
    """

    def pairs() -> list[ScoreRequest]:
        return [
            ScoreRequest(
                source=request.image,
                edited=image.picture,
                instruction=request.instruction,
                references=request.references,
            )
            for image in made
        ]

    try:
        scores = await backend.score(await run_sync(pairs))
        means = mean_of(scores)
        if means is not None:
            await edits.score(edit_id, means)
    except CareEditError as error:
        logger.warning("The edit %s was not judged: %s", edit_id, error, extra={"arm": arm})
        metrics.judged("failed", len(made))
        return None
    count_scores(metrics, scores)
    for score in scores:
        metrics.scored(arm, score)
    return means


def mean_of(scores: Sequence[Score]) -> Mapping[str, float] | None:
    """Means of the numbers that there are; None where every image's judgement failed."""
    numbers = {name: [value for score in scores if (value := getattr(score, name)) is not None] for name in ASPECTS}
    return {name: sum(found) / len(found) for name, found in numbers.items()} if numbers["overall"] else None
