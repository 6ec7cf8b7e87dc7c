"""`POST /v1/scores`: the judge scores pairs of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter
from PIL import Image
from pydantic import Field, StringConstraints
from starlette.requests import Request

from careedit.errors import InputError
from careedit.records import MAX_INSTRUCTION_CHARACTERS
from careedit.scoring import Score, ScoreRequest
from careedit_deployments.edits.codecs import PictureFile
from careedit_deployments.errors import FieldError
from careedit_deployments.http.form import picture_bytes
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.pictures import check_together, decode_pictures, inspect
from careedit_deployments.http.schema import Body, ImageRef, ScoreAnswer
from careedit_deployments.http.services import caller_of, limiter_of, limits_of, services_of
from careedit_deployments.http.sse import unless_gone
from careedit_deployments.listening import Limits

MAX_PAIRS = 16
"""Maximum number of pairs in one request."""

router = APIRouter(tags=["scores"], responses=error_answers(400, 401, 413, 415, 429, 500, 503))


class Pair(Body):
    """An edit for the judge: the image before and after."""

    source: ImageRef
    """The image before the edit."""
    edited: ImageRef
    """The image after the edit, in the size of the source."""
    instruction: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)]
    """The text that says what to change, 1 to 2,000 characters."""
    reference: ImageRef | None = None
    """The reference of the edit. Default: it had none."""


class ScoreBody(Body):
    """`POST /v1/scores` as JSON."""

    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MAX_PAIRS)]
    """The edits to score, 1 to 16."""


@router.post("/v1/scores", operation_id="createScores")
async def create_scores(body: ScoreBody, request: Request) -> ScoreAnswer:
    """Score edits: how probable it is that the instruction was followed, the rest preserved, and the image is clean.

    A pair that the judge could not score has an error in place of its scores.
    """
    with limiter_of(request).hold(caller_of(request)):
        limits = limits_of(request)
        files = await run_sync(lambda: [_files(pair, f"pairs[{i}]", limits) for i, pair in enumerate(body.pairs)])
        check_together([file for several in files for file in several], limits)
        return ScoreAnswer(scores=await unless_gone(request, lambda: _scores(request, body.pairs, files)))


def _files(pair: Pair, param: str, limits: Limits) -> list[PictureFile]:
    given = {"source": pair.source, "edited": pair.edited, "reference": pair.reference}
    return [
        inspect(picture_bytes(image, f"{param}.{name}"), f"{param}.{name}", limits)
        for name, image in given.items()
        if image is not None
    ]


async def _scores(request: Request, pairs: Sequence[Pair], files: Sequence[Sequence[PictureFile]]) -> list[Score]:
    """The scores, pair by pair. Small pairs are scored together, up to the pixels of one image of the maximum size."""
    services, scores = services_of(request), list[Score]()
    first = 0
    while first < len(pairs):
        last, pixels = first, 0
        while last < len(pairs) and (last == first or pixels + _pixels(files[last]) <= services.config.limits.pixels):
            pixels += _pixels(files[last])
            last += 1
        group = [file for several in files[first:last] for file in several]
        async with services.codecs.memory.hold(caller_of(request).id, sum(file.memory for file in group)):
            pictures = iter(await decode_pictures(request, group))
            questions = [_question(number, pairs[number], pictures) for number in range(first, last)]
            del pictures
            scores += await services.backend.score(questions)
            del questions
        first = last
    return scores


def _question(number: int, pair: Pair, pictures: Iterator[Image.Image]) -> ScoreRequest:
    """Pair `number` with its decoded images, which are the next ones of `pictures`. Raises `FieldError`."""
    try:
        return ScoreRequest(
            source=next(pictures),
            edited=next(pictures),
            instruction=pair.instruction,
            references=() if pair.reference is None else (next(pictures),),
        )
    except InputError as error:
        raise FieldError(str(error), f"pairs[{number}].{error.field}") from None


def _pixels(files: Sequence[PictureFile]) -> int:
    return sum(file.pixels for file in files)
