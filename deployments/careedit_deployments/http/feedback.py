"""`POST /v1/feedback`: what a person thinks of edits, for A/B comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.requests import Request

from careedit_deployments.errors import FieldError
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.schema import Answer, Body, Text
from careedit_deployments.http.services import caller_of, services_of
from careedit_deployments.state.records import FeedbackRecord, new_id
from careedit_deployments.telemetry.metrics import Verdict

TIE = "tie"

router = APIRouter(tags=["feedback"])


class FeedbackBody(Body):
    """Either `edit` and `rating`, or `edits` and `winner`."""

    edit: Text | None = None
    """Id of the edit that is rated."""
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    """1 (useless) to 5 (perfect)."""
    edits: Annotated[list[Text], Field(min_length=2, max_length=2)] | None = None
    """Ids of the two edits that are compared."""
    winner: Text | None = None
    """The better one's id, or "tie"."""
    comment: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    """In the person's words."""


class FeedbackAnswer(Answer):
    """Feedback that was kept."""

    id: str
    """Id of the feedback."""
    object: Literal["feedback"] = "feedback"
    """Always "feedback"."""
    created_at: int
    """Unix time."""


@router.post(
    "/v1/feedback",
    operation_id="createFeedback",
    status_code=201,
    responses=error_answers(400, 401, 404, 413, 415, 429, 500, 503),
)
async def give_feedback(body: FeedbackBody, request: Request) -> FeedbackAnswer:
    """Rate an edit, or say which of two is better. The edits must be the caller's own."""
    store, owner = services_of(request).store, caller_of(request).id
    edits = _edits(body)
    arms = {edit: (await store.edits.get(edit, owner=owner)).arm for edit in edits}
    feedback = FeedbackRecord(
        id=new_id("feedback"),
        owner=owner,
        edits=edits,
        winner=None if body.winner == TIE else body.winner,
        rating=body.rating,
        comment=body.comment,
        created=time.time(),
    )
    await store.feedback.add(feedback)
    for arm, verdict in _verdicts(feedback, arms):
        services_of(request).metrics.feedback(arm, verdict)
    return FeedbackAnswer(id=feedback.id, created_at=int(feedback.created))


def _verdicts(feedback: FeedbackRecord, arms: Mapping[str, str]) -> list[tuple[str, Verdict]]:
    """What is said of arms; comparing two edits of one arm says nothing of arms."""
    if feedback.rating is not None:
        rated: Verdict = "good" if feedback.rating > 3 else "bad" if feedback.rating < 3 else "neutral"
        return [(arms[feedback.edits[0]], rated)]
    if len(set(arms.values())) == 1:
        return []
    if feedback.winner is None:
        return [(arm, "tied") for arm in arms.values()]
    return [(arm, "won" if edit == feedback.winner else "lost") for edit, arm in arms.items()]


def _edits(body: FeedbackBody) -> tuple[str, ...]:
    """The edits that it is about. Raises `FieldError` where the fields do not go together."""
    if body.edits is None:
        if body.edit is None or body.rating is None or body.winner is not None:
            raise FieldError("Give `edit` and `rating`, or `edits` and `winner`.", "edit")
        return (body.edit,)
    if body.edit is not None or body.rating is not None or body.winner is None:
        raise FieldError("A comparison has `edits` and `winner` and no rating; give those two.", "winner")
    if body.edits[0] == body.edits[1]:
        raise FieldError("The two edits are the same one; compare two.", "edits")
    if body.winner not in (*body.edits, TIE):
        raise FieldError("winner is neither of the two edits; give one of their ids, or 'tie'.", "winner")
    return tuple(body.edits)
