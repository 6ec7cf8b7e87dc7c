"""Judging finished edits in the background. The scores are stored and counted; the guard and `careedit ab` use them."""

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
"""The numbers of a score that are stored."""

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
    """Judge the images of an edit, and store and return the mean scores. None: the judge failed.

    The edit must be stored already. A failure of the judge is logged and costs only the score.
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
    """Mean of each number over the images that have it. None if no image has an overall score."""
    numbers = {name: [value for score in scores if (value := getattr(score, name)) is not None] for name in ASPECTS}
    return {name: sum(found) / len(found) for name, found in numbers.items()} if numbers["overall"] else None
