"""`POST /v1/feedback`: a user rates an edit or compares two, for the A/B test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.requests import Request

from careedit_deployments.errors import FieldError
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.schema import Answer, Body, Text
from careedit_deployments.http.services import caller_of, services_of
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import FeedbackRecord
from careedit_deployments.telemetry.metrics import Verdict

TIE = "tie"
"""The `winner` of a comparison without a better edit."""

router = APIRouter(tags=["feedback"])


class FeedbackBody(Body):
    """A rating (`edit` and `rating`), or a comparison (`edits` and `winner`)."""

    edit: Text | None = None
    """Id of the rated edit."""
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    """Rating of the edit, from 1 (useless) to 5 (perfect)."""
    edits: Annotated[list[Text], Field(min_length=2, max_length=2)] | None = None
    """Ids of the two compared edits."""
    winner: Text | None = None
    """Id of the better edit, or "tie"."""
    comment: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    """A comment of the user, up to 2,000 characters. Default: none."""


class FeedbackAnswer(Answer):
    """The stored feedback."""

    id: str
    """Id of the stored feedback."""
    object: Literal["feedback"] = "feedback"
    """Type of the answer; always "feedback"."""
    created_at: int
    """Time at which it was stored, in Unix seconds."""


@router.post(
    "/v1/feedback",
    operation_id="createFeedback",
    status_code=201,
    responses=error_answers(400, 401, 404, 413, 415, 429, 500, 503),
)
async def give_feedback(body: FeedbackBody, request: Request) -> FeedbackAnswer:
    """Rate an edit, or say which of two is better. The edits must be the caller's own.

    A second verdict about the same edits replaces the first.
    """
    store, owner = services_of(request).store, caller_of(request).id
    edits = _edits(body)
    arms = {edit: (await store.edits.get(edit, owner=owner)).arm for edit in edits}
    about = "\n".join((owner, *sorted(edits)))
    feedback = FeedbackRecord(
        id=f"feedback_{hashlib.sha256(about.encode()).hexdigest()[:40]}",
        owner=owner,
        edits=edits,
        winner=None if body.winner == TIE else body.winner,
        rating=body.rating,
        comment=body.comment,
        created=unix_time(),
    )
    if await store.feedback.add(feedback):
        for arm, verdict in _verdicts(feedback, arms):
            services_of(request).metrics.feedback(arm, verdict)
    return FeedbackAnswer(id=feedback.id, created_at=int(feedback.created))


def _verdicts(feedback: FeedbackRecord, arms: Mapping[str, str]) -> list[tuple[str, Verdict]]:
    """The verdict about each arm. A comparison of two edits of the same arm gives none."""
    if feedback.rating is not None:
        rated: Verdict = "good" if feedback.rating > 3 else "bad" if feedback.rating < 3 else "neutral"
        return [(arms[feedback.edits[0]], rated)]
    if len(set(arms.values())) == 1:
        return []
    if feedback.winner is None:
        return [(arm, "tied") for arm in arms.values()]
    return [(arm, "won" if edit == feedback.winner else "lost") for edit, arm in arms.items()]


def _edits(body: FeedbackBody) -> tuple[str, ...]:
    """The edits that the feedback is about. Raises `FieldError` if the fields do not go together."""
    if body.edits is None:
        if body.edit is None or body.rating is None or body.winner is not None:
            raise FieldError("Give `edit` and `rating`, or `edits` and `winner`.", "edit")
        return (body.edit,)
    if body.edit is not None or body.rating is not None or body.winner is None:
        raise FieldError("A comparison takes `edits` and `winner` only; leave `edit` and `rating` out.", "winner")
    if body.edits[0] == body.edits[1]:
        raise FieldError("Both ids are of the same edit; give two different edits.", "edits")
    if body.winner not in (*body.edits, TIE):
        raise FieldError("winner is neither of the two edits; give one of their ids, or 'tie'.", "winner")
    return tuple(body.edits)
