"""`POST /v1/scores`: ask the judge about a pair of pictures."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter
from PIL import Image
from pydantic import Field, StringConstraints
from starlette.requests import Request

from careedit.images import decode_image
from careedit.records import MAX_INSTRUCTION_CHARACTERS
from careedit.scoring import ScoreRequest
from careedit_deployments.http.form import picture_bytes
from careedit_deployments.http.limits import picture_limits
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.order import decode
from careedit_deployments.http.schema import Body, ImageRef, ScoreAnswer
from careedit_deployments.http.services import caller_of, limiter_of, services_of
from careedit_deployments.http.sse import unless_gone

MAX_PAIRS = 16

router = APIRouter(tags=["scores"], responses=error_answers(400, 401, 413, 415, 429, 500, 503))


class Pair(Body):
    """An edit to be judged."""

    source: ImageRef
    """The picture before."""
    edited: ImageRef
    """The picture after; of the source's size."""
    instruction: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)]
    """What was to change."""
    reference: ImageRef | None = None
    """What the edit was to take something from."""


class ScoreBody(Body):
    """Edits to be judged."""

    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MAX_PAIRS)]
    """One or several, up to 16."""


@router.post("/v1/scores", operation_id="createScores")
async def create_scores(body: ScoreBody, request: Request) -> ScoreAnswer:
    """Judge edits: probabilities that the instruction was followed, the rest preserved, the picture clean.

    A pair that the judge could not read has an error in place of its numbers.
    """
    services = services_of(request)
    limits = picture_limits(services.config.limits)

    def picture(image: ImageRef, param: str) -> Image.Image:
        return decode(partial(decode_image, picture_bytes(image, param), limits=limits), param)

    def decoded() -> list[ScoreRequest]:
        return [
            ScoreRequest(
                source=picture(pair.source, f"pairs[{i}].source"),
                edited=picture(pair.edited, f"pairs[{i}].edited"),
                instruction=pair.instruction,
                references=() if pair.reference is None else (picture(pair.reference, f"pairs[{i}].reference"),),
            )
            for i, pair in enumerate(body.pairs)
        ]

    with limiter_of(request).hold(caller_of(request)):
        requests = await run_sync(decoded)
        return ScoreAnswer(scores=await unless_gone(request, lambda: services.backend.score(requests)))
